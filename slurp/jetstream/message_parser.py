"""Incremental parser of WebSocket data from a server. Pure, no I/O.

`frame` and `message` are used here as in RFC 6455: a message is sent in one or more frames. Elsewhere in this
program a frame is one such message of a Jetstream stream.
"""

from __future__ import annotations

from hashlib import blake2b
from struct import Struct
from typing import Any

from websocket import ABNF, WebSocketException, WebSocketProtocolException

from slurp.events.frames import DIGEST_SIZE, MAX_FRAME_BYTES, oversized_frame

_MAX_CONTROL_BYTES = 125
_UNFRAGMENTED_TEXT, _UNFRAGMENTED_BINARY = 0x80 | ABNF.OPCODE_TEXT, 0x80 | ABNF.OPCODE_BINARY

_UINT16, _UINT64 = Struct("!H"), Struct("!Q")


class MessageParser:
    """Converts received bytes into control frames and complete messages.

    A message of more than MAX_FRAME_BYTES is discarded while it arrives and replaced by `oversized_frame`.
    Memory is bounded by one message of up to that size plus the bytes that were fed and not yet parsed.
    """

    def __init__(self) -> None:
        self._unread = bytearray()
        # A fragmented message: its opcode and the payload received so far.
        self._opcode = 0
        self._fragments = bytearray()
        # An oversized message: its hash and size so far, and the rest of its current frame.
        self._hash: Any = None
        self._size = 0
        self._frame_rest = 0
        self._is_last_frame = False
        # A protocol error that is raised once the messages before it were returned.
        self._pending_error: WebSocketException | None = None

    def feed(self, data: bytes) -> None:
        """Append received bytes."""
        self._unread += data

    def next_messages(self) -> list[tuple[int, bytes]]:
        """Return opcode and payload of all control frames and messages that are complete.

        Raises WebSocketException for invalid data, after everything before it was returned.
        """
        if self._pending_error is not None:
            raise self._pending_error
        messages: list[tuple[int, bytes]] = []
        unread, at = self._unread, 0
        have = len(unread)
        # Fast path without a call for each message: unfragmented messages of less than 64 kB, nearly all
        # there are.
        while have - at >= 4 and self._hash is None and not self._opcode:
            first, length, begin = unread[at], unread[at + 1], at + 2
            if (first != _UNFRAGMENTED_TEXT and first != _UNFRAGMENTED_BINARY) or length > 126:
                break
            if length == 126:
                length, begin = unread[begin] << 8 | unread[begin + 1], at + 4
            if have - begin < length:
                break
            at = begin + length
            messages.append((first & 0x0F, bytes(unread[begin:at])))
        del unread[:at]
        try:
            while (message := self._next_message()) is not None:
                messages.append(message)
        except WebSocketException as error:
            if not messages:
                raise
            self._pending_error = error
        return messages

    def _next_message(self) -> tuple[int, bytes] | None:
        """Return the next control frame or message; None when more bytes are needed."""
        unread = self._unread
        while True:
            if self._hash is not None and not self._discard_frame():
                return None
            if self._hash is not None and self._is_last_frame:
                return self._oversized_message()
            have = len(unread)
            if have < 2:
                return None
            first, length = unread[0], unread[1]
            at = 2
            if length == 126:
                if have < 4:
                    return None
                (length,) = _UINT16.unpack_from(unread, 2)
                at = 4
            elif length == 127:
                if have < 10:
                    return None
                (length,) = _UINT64.unpack_from(unread, 2)
                at = 10
            elif length > 127:
                raise WebSocketProtocolException("the server masks its frames")
            opcode, end = first & 0x0F, at + length
            self._check_header(first, opcode, length)
            is_data = opcode <= ABNF.OPCODE_BINARY
            if is_data and (self._hash is not None or len(self._fragments) + length > MAX_FRAME_BYTES):
                del unread[:at]
                self._begin_to_discard(first, opcode, length)
                continue
            if have < end:
                return None
            # A memoryview, because bytes(unread[at:end]) would copy a large message twice.
            with memoryview(unread) as view:
                data = bytes(view[at:end])
            del unread[:end]
            if is_data:
                if opcode and first & 0x80:
                    return opcode, data
                self._opcode = opcode or self._opcode
                self._fragments += data
                if not first & 0x80:
                    continue
                opcode, data = self._opcode, bytes(self._fragments)
                self._reset_message()
                return opcode, data
            ABNF(1, 0, 0, 0, opcode, 0, data).validate(skip_utf8_validation=True)
            return opcode, data

    def _check_header(self, first: int, opcode: int, length: int) -> None:
        if first & 0x70:
            raise WebSocketProtocolException("the server uses an extension that was not negotiated")
        if opcode > ABNF.OPCODE_BINARY:
            if opcode not in ABNF.OPCODES:
                raise WebSocketProtocolException(f"invalid opcode {opcode}")
            if length > _MAX_CONTROL_BYTES or not first & 0x80:
                raise WebSocketProtocolException("a control frame is too long or fragmented")
        elif bool(opcode) == bool(self._opcode):
            raise WebSocketProtocolException("fragments out of order")

    def _begin_to_discard(self, first: int, opcode: int, length: int) -> None:
        if self._hash is None:
            self._hash = blake2b(self._fragments, digest_size=DIGEST_SIZE)
            self._size = len(self._fragments)
            self._fragments = bytearray()
        self._opcode = opcode or self._opcode
        self._frame_rest, self._is_last_frame = length, bool(first & 0x80)
        self._size += length

    def _discard_frame(self) -> bool:
        """Hash and drop what has arrived of the current frame; return whether the frame is complete."""
        if self._frame_rest:
            piece = self._unread[: self._frame_rest]
            self._hash.update(piece)
            self._frame_rest -= len(piece)
            del self._unread[: len(piece)]
        return not self._frame_rest

    def _oversized_message(self) -> tuple[int, bytes]:
        message = self._opcode, oversized_frame(self._size, self._hash.hexdigest())
        self._reset_message()
        return message

    def _reset_message(self) -> None:
        self._opcode, self._fragments, self._hash = 0, bytearray(), None
