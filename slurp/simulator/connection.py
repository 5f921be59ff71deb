"""One client connection: a thread that reads, writes and watches its deadlines with one selector."""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, field

from websockets.frames import Opcode
from websockets.protocol import SERVER, Protocol, State

from slurp.simulator import handshake, protocol_v1
from slurp.simulator.deadlines import Deadlines
from slurp.simulator.encoders import V1Encoder, V2Encoder
from slurp.simulator.endpoints import Endpoints
from slurp.simulator.faults import CloseFrame, Cut, FaultAction, Faults, Inject, Notice, RuleProgress, Stall
from slurp.simulator.filters import Filter
from slurp.simulator.handshake import HandshakeRejected

log = logging.getLogger(__name__)

_CHUNK = 500
"""Frames passed to the kernel in one piece, about 280 kB."""
_MAX_INCOMING = 10 * 2**20


@dataclass
class ConnectionRecord:
    """Facts about a connection, kept after it has ended."""

    path: str = ""
    params: dict[str, list[str]] = field(default_factory=dict)
    cursor: int | None = None
    """The cursor of the request; None for a live subscription."""
    frames: int = 0
    """Events passed to the kernel."""
    ended: str | None = None
    """How it ended in a few words; None while it is open."""
    opened: float = field(default_factory=time.monotonic)
    user_agent: str = ""


class _ConnectionEnded(Exception):
    """Leave the loop; the text is the reason, `reset` whether to close with an RST."""

    def __init__(self, reason: str, *, reset: bool = False) -> None:
        super().__init__(reason)
        self.reset = reset


class Connection:
    """Serves one TCP connection until it ends. `run()` is the body of its thread."""

    def __init__(self, sock: socket.socket, endpoints: Endpoints, faults: Faults) -> None:
        self.record = ConnectionRecord()
        self._sock = sock
        self._endpoints = endpoints
        self._store = endpoints.store
        self._faults = faults
        self._deadlines = Deadlines(endpoints.options)
        # Frames only: its HTTP parser accepts no line longer than 8 KiB.
        self._protocol = Protocol(SERVER, state=State.OPEN, max_size=_MAX_INCOMING)
        self._rule_progress = RuleProgress()
        self._encoder: V1Encoder | V2Encoder = V1Encoder()
        self._filter: Filter | None = None  # None until it is received: requireHello
        self._position = 0
        self._out: deque[memoryview] = deque()
        self._unsent_frames = 0  # frames in the outbox
        self._half_closed = False
        self._message = bytearray()
        self._stalled: tuple[Stall, int] | None = None
        self._close_request: tuple[int, str] | None = None
        self._killed = threading.Event()
        self._leaving = threading.Event()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)

    # Called from other threads.

    def wake(self) -> None:
        """Interrupt the wait of the thread, to look for new events, faults and requests."""
        # A full pipe has already woken it, a closed one belongs to an ended connection.
        with contextlib.suppress(BlockingIOError, OSError):
            self._wake_write.send(b"!")

    def close(self, code: int, reason: str) -> None:
        """Send a close frame after the data that is already queued."""
        self._close_request = (code, reason)
        self._leaving.set()
        self.wake()

    def kill(self) -> None:
        """End as if the process had been killed."""
        self._killed.set()
        self._leaving.set()
        self.wake()

    @property
    def behind(self) -> int | None:
        """Events not yet passed to the kernel; None before the subscription is complete."""
        return None if self._filter is None else max(0, self._store.end - self._position)

    # The thread.

    def run(self) -> None:
        """Serve the connection and record how it ended."""
        reset = False
        try:
            self._shake_hands()
            self._serve()
        except _ConnectionEnded as end:
            self.record.ended = str(end)
            reset = end.reset
        except HandshakeRejected as rejection:
            self.record.ended = f"refused {rejection.status}: {rejection}"
            self._send_rejection(rejection)
        except OSError as error:
            self.record.ended = f"lost: {error}"
        except Exception as error:
            self.record.ended = f"bug: {error!r}"
            log.exception("%s failed", threading.current_thread().name)
        finally:
            self._disconnect(reset)
            log.debug("connection %s ended: %s", self.record.path, self.record.ended)

    def _shake_hands(self) -> None:
        if (size := self._endpoints.options.send_buffer) is not None:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head, rest = handshake.read_head(self._sock, self._leaving.is_set)
        record = self.record
        record.path, record.params = protocol_v1.parse_target(head.target)
        record.user_agent = head.headers.get("User-Agent", "")
        body = handshake.read_body(self._sock, head, rest) if head.method == "POST" else b""
        response = self._endpoints.response(head, record.path, record.params, body)
        if response is not None:
            self._sock.settimeout(5.0)
            self._sock.sendall(response)
            raise _ConnectionEnded("response sent")
        handshake.delay(self._faults.take_delay(), self._leaving.is_set)
        if self._leaving.is_set():
            raise HandshakeRejected(0, "server shutting down")
        if (refusal := self._faults.take_refusal()) is not None:
            raise HandshakeRejected(*refusal)
        accepted = self._endpoints.subscribe(head, record.path, record.params)
        record.cursor = accepted.cursor
        self._encoder = accepted.encoder
        if accepted.filter is not None:
            # Before the 101 is sent: a client that has read it receives everything published since then.
            self._start_stream(accepted.filter)
        self._out += [memoryview(data) for data in (accepted.response, accepted.notice) if data]
        self._sock.setblocking(False)
        if rest:
            self._receive(rest)

    def _start_stream(self, chosen: Filter) -> None:
        self._position = self._endpoints.start_position(self.record.cursor)
        self._filter = chosen

    def _serve(self) -> None:
        self._deadlines.start()
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_read, selectors.EVENT_READ)
            selector.register(self._sock, selectors.EVENT_READ)
            interest = selectors.EVENT_READ
            while True:
                if self._killed.is_set():
                    raise _ConnectionEnded("killed")
                dead = self._is_stalled() and not self._sends_pongs()
                if not dead:
                    self._write()
                    self._check_deadlines()
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
                if dead:
                    # Not even the end of the client is noticed, as behind a broken router.
                    if interest:
                        selector.unregister(self._sock)
                    interest = 0
                elif wanted != interest:
                    (selector.modify if interest else selector.register)(self._sock, wanted)
                    interest = wanted
                for key, events in selector.select(None if dead else self._seconds_left()):
                    if key.fileobj is self._wake_read:
                        self._drain_wake_pipe()
                    elif events & selectors.EVENT_READ and not dead:
                        self._receive(self._sock.recv(65_536))

    def _write(self) -> None:
        """Fill the outbox and send until the kernel accepts no more or nothing is left."""
        while True:
            if not self._out:
                if self._half_closed:
                    raise _ConnectionEnded(self._end_reason())
                self.record.frames += self._unsent_frames
                self._unsent_frames = 0
                self._fill()
            if not self._out:
                self._deadlines.write_progressed()
                return
            try:
                sent = self._sock.send(self._out[0])
            except BlockingIOError:
                self._deadlines.write_blocked()
                return
            self._deadlines.write_progressed()
            if sent == len(self._out[0]):
                self._out.popleft()
            else:
                self._out[0] = self._out[0][sent:]
            if self._killed.is_set():
                raise _ConnectionEnded("killed")
            if self._deadlines.ping_is_due or self._readable():
                return

    def _readable(self) -> bool:
        """Return whether the client sent something: pings and close frames are answered even while busy."""
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        return True  # bytes, or the end of the stream

    def _fill(self) -> None:
        """Put the next piece into the empty outbox: a due fault, a requested close frame, or events."""
        if self._protocol.state is not State.OPEN or self._is_stalled():
            return
        if self._close_request is not None:
            self._send_close(*self._close_request)
            return
        if self._filter is None:
            return  # faults wait for subscribers: a probe that never sends an options_update uses none up
        action, limit = self._faults.next_action(self.record.frames, self._rule_progress)
        if action is not None:
            self._perform(action)
        else:
            self._fill_with_events(self._filter, _CHUNK if limit is None else min(_CHUNK, limit))

    def _fill_with_events(self, chosen: Filter, limit: int) -> None:
        """Queue the next events that pass the filter, if there are any."""
        while True:
            batch = self._store.read(self._position, limit)
            self._position = batch.end
            if not batch.frames:
                return
            if frames := self._encoder.select(batch, chosen):
                self._unsent_frames = len(frames)
                self._out.append(memoryview(self._encoder.serialize(frames)))
                return

    def _perform(self, action: FaultAction) -> None:
        match action:
            case Cut(reset, torn):
                if torn:
                    self._send_half_a_frame()
                raise _ConnectionEnded("reset" if reset else "cut", reset=reset)
            case CloseFrame(code, reason):
                self._send_close(code, reason)
            case Stall():
                self._stalled = (action, self._faults.epoch)
            case Inject(data, payloads):
                self._faults.record_injected(payloads)
                self._out.append(memoryview(data))
            case Notice(name, message, is_error):
                if data := self._encoder.notice(name, message, is_error=is_error):
                    self._out.append(memoryview(data))
                if is_error:
                    self._send_close(1008, name)

    def _send_half_a_frame(self) -> None:
        """Send the first half of the next frame, or of an invented one when there is no event."""
        batch = self._store.read(self._position, 1)
        frame = self._encoder.serialize(batch.frames or [b'{"did":"did:plc:torn"}'])
        with contextlib.suppress(BlockingIOError):
            self._sock.send(frame[: len(frame) // 2])

    def _send_close(self, code: int, reason: str) -> None:
        self._protocol.send_close(code, reason)
        self._queue_protocol_data()
        self._deadlines.close_sent()

    def _receive(self, data: bytes) -> None:
        if not data:
            raise _ConnectionEnded(self._end_reason())
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            opcode = getattr(event, "opcode", None)
            if opcode is Opcode.PONG:
                self._deadlines.pong_received()
            elif opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._message += getattr(event, "data", b"")
                if getattr(event, "fin", True):
                    message, self._message = bytes(self._message), bytearray()
                    self._update_options(message)
        self._queue_protocol_data()

    def _update_options(self, message: bytes) -> None:
        if self._protocol.state is not State.OPEN:
            return
        if not self._encoder.accepts_updates:
            self._send_close(1008, "server push only")
            return
        try:
            chosen = protocol_v1.parse_update(message)
        except protocol_v1.BadUpdate as error:
            self._send_close(error.code, str(error)[:120])
            return
        if self._filter is None:
            self._start_stream(chosen)
        else:
            self._filter = chosen

    def _queue_protocol_data(self) -> None:
        """Queue the control frames of the protocol behind the data."""
        for data in self._protocol.data_to_send():
            if data:
                self._out.append(memoryview(data))
            else:
                self._half_closed = True  # its SEND_EOF: disconnect once the outbox is empty

    def _check_deadlines(self) -> None:
        deadlines = self._deadlines
        if deadlines.write_expired:
            raise _ConnectionEnded("write timeout")
        if deadlines.pong_expired:
            raise _ConnectionEnded("pong timeout")
        if not deadlines.closing and self._close_request is not None:
            # Counts from the shutdown: a client that reads nothing does not get the close frame either.
            deadlines.close_sent()
        if deadlines.close_expired:
            raise _ConnectionEnded(self._end_reason())
        if deadlines.ping_is_due and self._protocol.state is State.OPEN:
            deadlines.ping_sent()
            self._protocol.send_ping(b"simulator")
            self._queue_protocol_data()

    def _seconds_left(self) -> float:
        return self._deadlines.seconds_left(pings=self._protocol.state is State.OPEN)

    def _is_stalled(self) -> bool:
        if self._stalled is None:
            return False
        if self._stalled[1] != self._faults.epoch or self._leaving.is_set():
            self._stalled = None
            return False
        return True

    def _sends_pongs(self) -> bool:
        return self._stalled is None or self._stalled[0].pongs

    def _drain_wake_pipe(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_read.recv(4096):
                pass

    def _end_reason(self) -> str:
        protocol = self._protocol
        if protocol.close_rcvd_then_sent:
            return f"closed by client {protocol.close_rcvd.code if protocol.close_rcvd else 1005}"
        if protocol.close_sent is not None:
            return f"closed {protocol.close_sent.code} {protocol.close_sent.reason}".rstrip()
        return "closed without a close frame" if self._close_request else "lost: the client disconnected"

    def _send_rejection(self, rejection: HandshakeRejected) -> None:
        if not rejection.status:
            return
        # The client may have disconnected already.
        with contextlib.suppress(OSError):
            self._sock.settimeout(2.0)
            self._sock.sendall(handshake.error_response(rejection.status, str(rejection)))
            self._sock.shutdown(socket.SHUT_WR)

    def _disconnect(self, reset: bool) -> None:
        with contextlib.suppress(OSError):
            if reset:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                # Unread bytes would turn the FIN into an RST, which destroys what the client has
                # received but not read. A real server's last frames stay readable.
                self._sock.setblocking(False)
                while self._sock.recv(65_536):
                    pass
        self._sock.close()
        self._wake_write.close()
        self._wake_read.close()
