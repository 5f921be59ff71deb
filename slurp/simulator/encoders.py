"""Encode stored events for a subscriber: select those it wants, and serialize them as WebSocket frames."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from slurp.simulator import protocol_v2
from slurp.simulator.dictionaries import Dictionary
from slurp.simulator.event_store import StoredBatch
from slurp.simulator.filters import Filter

_TEXT, _BINARY = 0x81, 0x82
"""First byte of an unfragmented WebSocket frame, by opcode."""


class V1Encoder:
    """Frames as they are stored, without those hidden from v1: #syncs and the creates that follow them."""

    accepts_updates = True
    """Whether the protocol has messages from client to server."""

    def select(self, batch: StoredBatch, chosen: Filter) -> list[bytes]:
        """Return the frames of the batch that pass the filter."""
        if chosen.matches_all and 1 not in batch.hidden:
            return batch.frames
        columns = zip(batch.frames, batch.dids, batch.collections, batch.hidden, strict=True)
        return [
            frame
            for frame, did, collection, hidden in columns
            if not hidden and chosen.matches(collection, did, len(frame))
        ]

    def serialize(self, frames: Iterable[bytes]) -> bytes:
        """Return WebSocket frames, ready to be sent."""
        return text_frames(frames)

    def notice(self, name: str, message: str, *, is_error: bool) -> bytes:
        """Return nothing: the v1 protocol has no notices."""
        return b""


class V2Encoder:
    """All events as v2 messages, optionally compressed. Messages are built anew for each subscriber."""

    accepts_updates = False

    def __init__(self, kinds: frozenset[str], dictionary: Dictionary | None) -> None:
        self._kinds = kinds
        self._dictionary = dictionary

    def select(self, batch: StoredBatch, chosen: Filter) -> list[bytes]:
        """Return the v2 frames of the events that pass the filter."""
        frames = []
        for stored, did, collection, seq in zip(
            batch.frames, batch.dids, batch.collections, batch.sequence_numbers, strict=True
        ):
            kind, frame = _to_v2(stored, seq)
            if self._kinds and kind not in self._kinds:
                continue
            if chosen.matches_all or chosen.matches(collection, did, len(frame)):
                frames.append(frame)
        return frames

    def serialize(self, frames: Iterable[bytes]) -> bytes:
        """Return WebSocket frames, ready to be sent: text, or binary with zstd."""
        if self._dictionary is None:
            return text_frames(frames)
        return binary_frames(map(self._dictionary.compress, frames))

    def notice(self, name: str, message: str, *, is_error: bool) -> bytes:
        """Return an error or #info frame, ready to be sent."""
        make = protocol_v2.error if is_error else protocol_v2.info
        return self.serialize([make(name, message)])


def _to_v2(stored: bytes, seq: int) -> tuple[str, bytes]:
    """Return kind and v2 frame of a stored event; an undecodable one has no kind and stays as it is."""
    try:
        event = orjson.loads(stored)
        return event["kind"], protocol_v2.frame(event, seq)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return "", stored


def text_frames(payloads: Iterable[bytes]) -> bytes:
    """Return all payloads as unmasked WebSocket text frames in one buffer."""
    return _frames(payloads, _TEXT, _TEXT_HEADERS)


def binary_frames(payloads: Iterable[bytes]) -> bytes:
    """Return all payloads as unmasked WebSocket binary frames in one buffer."""
    return _frames(payloads, _BINARY, _BINARY_HEADERS)


def _header(first: int, size: int) -> bytes:
    if size < 126:
        return bytes((first, size))
    if size < 65_536:
        return bytes((first, 0x7E)) + size.to_bytes(2, "big")
    return bytes((first, 0x7F)) + size.to_bytes(8, "big")


# Nearly all frames are shorter than this; a list index costs a fifth of the call.
_TEXT_HEADERS = [_header(_TEXT, size) for size in range(4096)]
_BINARY_HEADERS = [_header(_BINARY, size) for size in range(4096)]


def _frames(payloads: Iterable[bytes], first: int, headers: list[bytes]) -> bytes:
    parts: list[bytes] = []
    add = parts.append
    for payload in payloads:
        size = len(payload)
        add(headers[size] if size < 4096 else _header(first, size))
        add(payload)
    return b"".join(parts)
