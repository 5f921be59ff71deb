"""One subscriber: a thread that reads, writes and keeps time with a single selector."""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from websockets.frames import Opcode
from websockets.protocol import SERVER, Protocol, State

from slurp.simulator import codecs, handshake, wire, wire2
from slurp.simulator.dictionaries import Dictionaries
from slurp.simulator.faults import Action, CloseFrame, Cut, Faults, Inject, Progress, Say, Stall
from slurp.simulator.handshake import Refused
from slurp.simulator.store import Store

log = logging.getLogger(__name__)

_CHUNK = 500
"""Frames handed to the kernel in one piece, about 280 kB."""
_MAX_INCOMING = 10 * 2**20
_CLOSE_TIMEOUT = 1.0


@dataclass(frozen=True)
class Manners:
    """How patient the server is, in seconds, and how far it looks back."""

    write_timeout: float = 5.0
    ping_interval: float = 30.0
    pong_timeout: float = 5.0
    lookback: float = 36 * 3600.0
    active_segment: float = 0.0
    """Time cursors newer than this replay from this long ago, as on a real server."""
    send_buffer: int | None = None
    """Bytes the kernel may hold for a client; None lets it choose, which is several MB."""


@dataclass(frozen=True)
class Offer:
    """How the server behaves, and what it has."""

    manners: Manners
    wires: tuple[str, ...]
    dictionaries: Dictionaries


@dataclass
class ConnectionRecord:
    """What is known of a connection, also after its end."""

    path: str = ""
    params: dict[str, list[str]] = field(default_factory=dict)
    cursor: int | None = None
    """The one asked for; None is live."""
    frames: int = 0
    """Events handed to the kernel."""
    ended: str | None = None
    """How it ended in a few words; None while it is open."""
    opened: float = field(default_factory=time.monotonic)
    user_agent: str = ""


class _Ended(Exception):
    """Leave the loop; the text says why, `reset` whether to hang up with an RST."""

    def __init__(self, why: str, *, reset: bool = False) -> None:
        super().__init__(why)
        self.reset = reset


class Connection:
    """Serves one TCP connection until its end. `run()` is the body of its thread."""

    def __init__(
        self, sock: socket.socket, store: Store, faults: Faults, offer: Offer, now_us: Callable[[], int]
    ) -> None:
        self.record = ConnectionRecord()
        self._sock = sock
        self._store = store
        self._faults = faults
        self._offer = offer
        self._manners = offer.manners
        self._now_us = now_us
        # Frames only: its HTTP parser takes no line longer than 8 KiB.
        self._protocol = Protocol(SERVER, state=State.OPEN, max_size=_MAX_INCOMING)
        self._progress = Progress()
        self._codec: codecs.V1 | codecs.V2 = codecs.V1()
        self._filter: wire.Filter | None = None  # None until it is known: requireHello
        self._position = 0
        self._out: deque[memoryview] = deque()
        self._counted = 0  # frames in the outbox
        self._half_closed = False
        self._message = bytearray()
        self._stalled: tuple[Stall, int] | None = None
        self._blocked_since: float | None = None
        self._pong_due: float | None = None
        self._ping_due = 0.0
        self._close_due: float | None = None
        self._farewell: tuple[int, str] | None = None
        self._killed = threading.Event()
        self._leaving = threading.Event()
        self._bell, self._doorbell = socket.socketpair()
        self._bell.setblocking(False)
        self._doorbell.setblocking(False)

    # Called from other threads.

    def wake(self) -> None:
        """There may be something new to do."""
        # A full bell has rung already, a closed one has nobody behind it.
        with contextlib.suppress(BlockingIOError, OSError):
            self._doorbell.send(b"!")

    def leave(self, code: int, reason: str) -> None:
        """Say goodbye with a close frame after what is on its way."""
        self._farewell = (code, reason)
        self._leaving.set()
        self.wake()

    def kill(self) -> None:
        """End as if the process had been killed."""
        self._killed.set()
        self._leaving.set()
        self.wake()

    @property
    def behind(self) -> int | None:
        """Events not yet handed to the kernel; None before the subscription is known."""
        return None if self._filter is None else max(0, self._store.end - self._position)

    # The thread.

    def run(self) -> None:
        reset = False
        try:
            self._shake_hands()
            self._serve()
        except _Ended as end:
            self.record.ended = str(end)
            reset = end.reset
        except Refused as refusal:
            self.record.ended = f"refused {refusal.status}: {refusal}"
            self._refuse(refusal)
        except OSError as error:
            self.record.ended = f"lost: {error}"
        except Exception as error:
            self.record.ended = f"bug: {error!r}"
            log.exception("%s died", threading.current_thread().name)
        finally:
            self._hang_up(reset)
            log.debug("connection %s ended: %s", self.record.path, self.record.ended)

    def _shake_hands(self) -> None:
        if self._manners.send_buffer is not None:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._manners.send_buffer)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head, rest = handshake.read_head(self._sock, self._leaving.is_set)
        record = self.record
        record.path, record.params = wire.parse_target(head.target)
        record.user_agent = head.headers.get("User-Agent", "")
        v2 = "v2" in self._offer.wires
        if record.path == wire2.DICTIONARY_PATH and v2:
            self._send_dictionary()
        handshake.wait_out(self._faults.take_delay(), self._leaving.is_set)
        if self._leaving.is_set():
            raise Refused(0, "server shutting down")
        if (refusal := self._faults.take_refusal()) is not None:
            raise Refused(*refusal)
        if record.path == wire.PATH and "v1" in self._offer.wires:
            response = self._accept_v1(head)
        elif record.path == wire2.PATH and v2:
            response = self._accept_v2(head)
        else:
            raise Refused(404, "not found")
        self._out.appendleft(memoryview(response))
        self._sock.setblocking(False)
        if rest:
            self._receive(rest)

    def _accept_v1(self, head: handshake.Head) -> bytes:
        try:
            subscription = wire.parse_subscription(self.record.params)
        except wire.BadRequest as error:
            raise Refused(400, str(error)) from error
        response = handshake.accept(head)
        self.record.cursor = subscription.cursor
        if not subscription.require_hello:
            # Before the 101 goes out: who has read it gets everything published from then on.
            self._begin(subscription.filter)
        return response

    def _accept_v2(self, head: handshake.Head) -> bytes:
        try:
            subscription = wire2.Subscription(self.record.params)
        except wire.BadRequest as error:
            raise Refused(400, wire2.refusal("InvalidRequest", str(error))) from error
        dictionary = None
        if (wanted := subscription.dictionary) is not None:
            if wanted != (current := self._offer.dictionaries.id):
                text = f"unknown zstd dictionary id {wanted}; current dictionary id is {current}"
                raise Refused(400, wire2.refusal("UnknownZstdDictionary", text))
            dictionary = self._offer.dictionaries.current()
        outdated = self._check_cursor(subscription.cursor)
        response = handshake.accept(head)
        self.record.cursor = subscription.cursor
        self._codec = codecs.V2(subscription.kinds, dictionary)
        if outdated:
            self._out.append(memoryview(self._codec.notice("OutdatedCursor", outdated, is_error=False)))
        self._begin(subscription.filter)
        return response

    def _check_cursor(self, cursor: int | None) -> str:
        """What to tell of a time below the floor; a sequence number below it is refused."""
        floor = self._store.floor(self._now_us(), self._lookback_us)
        if cursor is None or floor is None:
            return ""
        seq, time_us = floor
        if cursor >= wire.FIRST_TIME_CURSOR:
            return f"cursor below the lookback floor, resumed from seq {seq}" if cursor < time_us else ""
        if cursor < seq:
            text = f"cursor too old: cursor {cursor} below lookback floor {seq}"
            raise Refused(400, wire2.refusal("CursorTooOld", text))
        return ""

    def _send_dictionary(self) -> None:
        dictionary = self._offer.dictionaries.current()
        asked = wire.last(self.record.params, "id")
        if asked not in (None, str(dictionary.id)):
            text = f"no dictionary with id {asked[:20]}; current dictionary id is {dictionary.id}"
            raise Refused(404, wire2.refusal("DictionaryNotFound", text))
        headers = {"X-Zstd-Dictionary-Id": str(dictionary.id)}
        self._sock.settimeout(5.0)
        self._sock.sendall(handshake.file_response(dictionary.data, headers))
        raise _Ended("gave its dictionary")

    @property
    def _lookback_us(self) -> int:
        return round(self._manners.lookback * 1e6)

    def _begin(self, chosen: wire.Filter) -> None:
        cursor, now = self.record.cursor, self._now_us()
        if cursor is not None and wire.FIRST_TIME_CURSOR <= cursor <= now:
            cursor = min(cursor, now - round(self._manners.active_segment * 1e6))
        self._position = self._store.find(cursor, now, self._lookback_us)
        self._filter = chosen

    def _serve(self) -> None:
        self._ping_due = time.monotonic() + self._manners.ping_interval
        with selectors.DefaultSelector() as selector:
            selector.register(self._bell, selectors.EVENT_READ)
            selector.register(self._sock, selectors.EVENT_READ)
            interest = selectors.EVENT_READ
            while True:
                if self._killed.is_set():
                    raise _Ended("killed")
                dead = self._is_stalled() and not self._pongs()
                if not dead:
                    self._write()
                    self._keep_time()
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
                if dead:
                    # Not even an end of the other side is noticed, as behind a broken router.
                    if interest:
                        selector.unregister(self._sock)
                    interest = 0
                elif wanted != interest:
                    (selector.modify if interest else selector.register)(self._sock, wanted)
                    interest = wanted
                for key, events in selector.select(None if dead else self._timeout()):
                    if key.fileobj is self._bell:
                        self._empty_bell()
                    elif events & selectors.EVENT_READ and not dead:
                        self._receive(self._sock.recv(65_536))

    def _write(self) -> None:
        """Fill the outbox and send until the kernel has enough or there is nothing left."""
        while True:
            if not self._out:
                if self._half_closed:
                    raise _Ended(self._epitaph())
                self.record.frames += self._counted
                self._counted = 0
                self._fill()
            if not self._out:
                self._blocked_since = None
                return
            try:
                sent = self._sock.send(self._out[0])
            except BlockingIOError:
                if self._blocked_since is None:
                    self._blocked_since = time.monotonic()
                return
            self._blocked_since = None
            if sent == len(self._out[0]):
                self._out.popleft()
            else:
                self._out[0] = self._out[0][sent:]
            if self._killed.is_set():
                raise _Ended("killed")
            if time.monotonic() >= self._ping_due or self._readable():
                return

    def _readable(self) -> bool:
        """A busy writer must still listen: for pings, for a close frame."""
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        return True  # bytes, or the end of the stream

    def _fill(self) -> None:
        """Put the next piece into the empty outbox: a fault that is due, a farewell, or events."""
        if self._protocol.state is not State.OPEN or self._is_stalled():
            return
        if self._farewell is not None:
            self._say_goodbye(*self._farewell)
            return
        if self._filter is None:
            return  # faults wait for subscribers: a probe that never says hello uses none up
        action, limit = self._faults.next_action(self.record.frames, self._progress)
        if action is not None:
            self._perform(action)
        else:
            self._fill_with_events(self._filter, _CHUNK if limit is None else min(_CHUNK, limit))

    def _fill_with_events(self, chosen: wire.Filter, limit: int) -> None:
        while frames := self._next_frames(chosen, limit):
            if frames[0]:
                self._counted = len(frames[0])
                self._out.append(memoryview(self._codec.pack(frames[0])))
                return

    def _next_frames(self, chosen: wire.Filter, limit: int) -> tuple[list[bytes]] | None:
        """The wanted ones among the next events, perhaps none; None at the end of the store."""
        batch = self._store.read(self._position, limit)
        self._position = batch.end
        if not batch.frames:
            return None
        return (self._codec.select(batch, chosen),)

    def _perform(self, action: Action) -> None:
        match action:
            case Cut(reset, torn):
                if torn:
                    self._tear()
                raise _Ended("reset" if reset else "cut", reset=reset)
            case CloseFrame(code, reason):
                self._say_goodbye(code, reason)
            case Stall():
                self._stalled = (action, self._faults.epoch)
            case Inject(data, payloads):
                self._faults.note_injected(payloads)
                self._out.append(memoryview(data))
            case Say(name, message, is_error):
                if data := self._codec.notice(name, message, is_error=is_error):
                    self._out.append(memoryview(data))
                if is_error:
                    self._say_goodbye(1008, name)

    def _tear(self) -> None:
        """Half of the next frame, or of a made-up one when there is none."""
        batch = self._store.read(self._position, 1)
        frame = self._codec.pack(batch.frames or [b'{"did":"did:plc:torn"}'])
        with contextlib.suppress(BlockingIOError):
            self._sock.send(frame[: len(frame) // 2])

    def _say_goodbye(self, code: int, reason: str) -> None:
        self._protocol.send_close(code, reason)
        self._collect()
        self._close_due = time.monotonic() + _CLOSE_TIMEOUT

    def _receive(self, data: bytes) -> None:
        if not data:
            raise _Ended(self._epitaph())
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            opcode = getattr(event, "opcode", None)
            if opcode is Opcode.PONG:
                self._pong_due = None
            elif opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._message += getattr(event, "data", b"")
                if getattr(event, "fin", True):
                    message, self._message = bytes(self._message), bytearray()
                    self._update(message)
        self._collect()

    def _update(self, message: bytes) -> None:
        if self._protocol.state is not State.OPEN:
            return
        if not self._codec.updatable:
            self._say_goodbye(1008, "server push only")
            return
        try:
            chosen = wire.parse_update(message)
        except wire.BadUpdate as error:
            self._say_goodbye(error.code, str(error)[:120])
            return
        if self._filter is None:
            self._begin(chosen)
        else:
            self._filter = chosen

    def _collect(self) -> None:
        """Queue what the protocol wants to say behind the data."""
        for data in self._protocol.data_to_send():
            if data:
                self._out.append(memoryview(data))
            else:
                self._half_closed = True  # its SEND_EOF: hang up once the outbox is empty

    def _keep_time(self) -> None:
        now = time.monotonic()
        if self._blocked_since is not None and now - self._blocked_since >= self._manners.write_timeout:
            raise _Ended("too slow")
        if self._pong_due is not None and now >= self._pong_due:
            raise _Ended("no pong")
        if self._close_due is None and self._farewell is not None:
            # Counts from the shutdown: who reads nothing gets no close frame either.
            self._close_due = now + _CLOSE_TIMEOUT
        if self._close_due is not None and now >= self._close_due:
            raise _Ended(self._epitaph())
        if now >= self._ping_due and self._protocol.state is State.OPEN:
            self._ping_due = now + self._manners.ping_interval
            if self._pong_due is None:  # the oldest ping that waits sets the deadline
                self._pong_due = now + self._manners.pong_timeout
            self._protocol.send_ping(b"simulator")
            self._collect()

    def _timeout(self) -> float:
        due = [self._ping_due if self._protocol.state is State.OPEN else float("inf")]
        if self._blocked_since is not None:
            due.append(self._blocked_since + self._manners.write_timeout)
        if self._pong_due is not None:
            due.append(self._pong_due)
        if self._close_due is not None:
            due.append(self._close_due)
        return min(60.0, max(0.0, min(due) - time.monotonic()))

    def _is_stalled(self) -> bool:
        if self._stalled is None:
            return False
        if self._stalled[1] != self._faults.epoch or self._leaving.is_set():
            self._stalled = None
            return False
        return True

    def _pongs(self) -> bool:
        return self._stalled is None or self._stalled[0].pongs

    def _empty_bell(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._bell.recv(4096):
                pass

    def _epitaph(self) -> str:
        protocol = self._protocol
        if protocol.close_rcvd_then_sent:
            return f"closed by client {protocol.close_rcvd.code if protocol.close_rcvd else 1005}"
        if protocol.close_sent is not None:
            return f"closed {protocol.close_sent.code} {protocol.close_sent.reason}".rstrip()
        return "left without goodbye" if self._farewell else "lost: the client hung up"

    def _refuse(self, refusal: Refused) -> None:
        if not refusal.status:
            return
        # The client may be gone already; nobody is left to tell then.
        with contextlib.suppress(OSError):
            self._sock.settimeout(2.0)
            self._sock.sendall(handshake.error_response(refusal.status, str(refusal)))
            self._sock.shutdown(socket.SHUT_WR)

    def _hang_up(self, reset: bool) -> None:
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
        self._doorbell.close()
        self._bell.close()
