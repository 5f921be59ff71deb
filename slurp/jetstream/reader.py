"""The reader thread: frames from one Jetstream server at a time into batches, and what to do when it ends."""

from __future__ import annotations

import logging
import struct
import threading
import time
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

import websocket
from websocket import ABNF

from slurp.config import Config
from slurp.flow import Batch, Buffer
from slurp.jetstream.dialer import Dialer
from slurp.jetstream.hosts import hang_up, host_of, why
from slurp.jetstream.line import Line
from slurp.jetstream.subscription import Subscription
from slurp.pacing import Backoff
from slurp.position import Position
from slurp.tally import Tally
from slurp.units import format_duration

log = logging.getLogger(__name__)

_GOOD_SERVICE = 60.0
_FAILURES_BEFORE_NEXT_HOST = 3

# Below the 10 MB of a bulk request, as documents are a little larger than their frames.
_MAX_BATCH_BYTES = 5_000_000

# A server hangs up on whoever does not read for 5 s. A wait of ours half as long may be the reason
# for a cut even a while later: what the kernel had buffered still comes first.
_OUR_WAIT = 2.5
_OUR_WAIT_REMEMBERED = 60.0

_PING_WHEN_SILENT = 1.0

# With collection filters pongs keep a quiet stream alive, but identity and account events still come.
_QUIET_TIMES = 10


class End(Enum):
    STOPPED = "stopped"
    CLOSED = "closed in order"
    CUT = "cut"
    STALLED = "stalled"


class Ending(NamedTuple):
    """How a connection ended. `ours` when we had not read for so long that the server gave up."""

    end: End
    reason: str
    ours: bool = False


class Reader:
    """Keeps one subscription connected. `step` is one connection, from handshake to its end."""

    def __init__(
        self,
        config: Config,
        subscription: Subscription,
        servers: Sequence[str],
        buffer: Buffer,
        tally: Tally,
        stop: threading.Event,
        known: Position,
        *,
        clean: bool,
        live: bool,
    ) -> None:
        """`known` is where an earlier run came to, or where to start; `clean` is false when it may
        have ended in disorder; `live` makes the first connection start with what happens now."""
        self._subscription = subscription
        self._dialer = Dialer(config, subscription)
        self._line: Line | None = None
        self._servers = list(servers)
        self._buffer = buffer
        self._tally = tally
        self._stop = stop
        self._known = known
        self._clean = clean
        self._live = live
        self._batch_events = config.batch
        self._flush = config.flush
        self._stall = config.stall_timeout
        self._backoff = Backoff()
        self._failures = 0
        self._number = 0
        self._frames: list[bytes] = []
        self._size = 0
        self._began = 0.0
        self._waited_at = float("-inf")
        self._last_data = time.monotonic()
        self._answered = float("-inf")
        # Nobody but --catch-up asks whether a silent server lives before it is stalled.
        self._ping_when_silent = _PING_WHEN_SILENT if config.catch_up else float("inf")
        self._connected = False
        self._connections = 0
        self._got_data = False
        self._told_to_stop = False

    @property
    def host(self) -> str:
        return host_of(self._servers[0])

    @property
    def connected(self) -> bool:
        return self._connected

    @property
    def ended_clean(self) -> bool:
        """After the end: no disorder of the server's is left to be read again."""
        return self._clean or (self._got_data and self._told_to_stop)

    @property
    def silent_for(self) -> float:
        """For how many seconds the server has had no data for us, though it lives: how long after the last
        data frame, or the beginning of the connection, we sent the last ping that it has answered."""
        return max(0.0, self._answered - self._last_data)

    def step(self) -> bool:
        """One connection. False when the reader was told to stop."""
        if self._stop.is_set():
            return False
        server = self._servers[0]
        began = time.monotonic()
        try:
            line = self._connect(server)
        except (OSError, websocket.WebSocketException) as error:
            return self._after(Ending(End.CUT, f"can't connect: {why(error)}"), began)
        try:
            ending = self._pump(line)
        finally:
            self._connected = False
            hang_up(line.connection)
        return self._after(ending, began)

    def _connect(self, server: str) -> Line:
        host = host_of(server)
        cursor = None if self._live else self._tally.resume_cursor(self._known, self._clean, host)
        known = self._known.cursor if self._known.host == host else None
        line = self._line = self._dialer.connect(server, cursor, known)
        line.connection.settimeout(min(max(self._flush / 4, 0.02), 0.5))
        start = "live" if line.cursor is None else f"from cursor {line.cursor}"
        log.info("connected to %s, reading %s, %s wire", host, start, line.name)
        if self._connections:
            self._tally.reconnected()
        self._connections += 1
        # From here on a lost connection would lose events: no more live starts.
        self._live = False
        self._got_data = False
        self._last_data = time.monotonic()
        self._connected = True
        return line

    def _pump(self, line: Line) -> Ending:
        """Read until the connection ends, stalls, or the stop event is set."""
        now = self._last_data = last_pong = last_ping = time.monotonic()
        connection, unpack = line.connection, line.unpack
        pings: dict[bytes, float] = {}
        receive, frames, stopped = connection.recv_data, self._frames, self._stop.is_set
        while not stopped():
            try:
                opcode, data = receive(control_frame=True)
            except websocket.WebSocketTimeoutException:
                opcode, data = None, b""
            except (websocket.WebSocketException, OSError) as error:
                return self._cut(why(error))
            now = time.monotonic()
            if opcode == ABNF.OPCODE_TEXT or opcode == ABNF.OPCODE_BINARY:
                if not frames:
                    self._began = now
                frames.append(frame := unpack(data))
                self._size += len(frame)
                self._last_data = now
                self._got_data = True
            elif opcode == ABNF.OPCODE_PONG:
                last_pong = now
                self._answered = pings.pop(data, self._answered)
            elif opcode == ABNF.OPCODE_CLOSE:
                return _closed(data)
            if frames and (
                now - self._began >= self._flush
                or len(frames) >= self._batch_events
                or self._size >= _MAX_BATCH_BYTES
            ):
                self._hand_over()
                if line.error is not None:
                    return self._cut(str(line.error))
                frames = self._frames
                waited = time.monotonic() - now
                if waited > _OUR_WAIT:
                    self._waited_at = now = self._last_data = last_pong = last_ping = now + waited
            pause = now - last_ping
            if pause >= self._stall / 3 or min(pause, now - self._last_data) >= self._ping_when_silent:
                last_ping = now
                payload = str(now).encode()
                pings[payload] = now
                try:
                    connection.ping(payload)
                except (websocket.WebSocketException, OSError) as error:
                    return self._cut(why(error))
            if self._is_stalled(now, last_pong):
                return Ending(End.STALLED, f"no data for {format_duration(now - self._last_data)}")
        return Ending(End.STOPPED, "told to stop")

    def _is_stalled(self, now: float, last_pong: float) -> bool:
        silent = now - self._last_data
        if silent < self._stall:
            return False
        deaf = now - last_pong >= self._stall
        if self._subscription.dids:
            return deaf
        if self._subscription.collections:
            return deaf or silent >= _QUIET_TIMES * self._stall
        return True

    def _cut(self, reason: str) -> Ending:
        ours = time.monotonic() - self._waited_at <= _OUR_WAIT_REMEMBERED
        return Ending(End.CUT, reason, ours)

    def _hand_over(self) -> None:
        """The frames so far become a batch. Waits for room: this is the back-pressure."""
        if not self._frames or self._line is None:
            return
        portion = self._line.portion(self._frames, self.host)
        if not portion.frames:
            self._frames, self._size = [], 0
            return
        batch = Batch(
            number=self._number + 1,
            host=self.host,
            frames=portion.frames,
            size=self._size,
            position=portion.position,
            announced=portion.announced,
        )
        while not self._buffer.reserve(batch, timeout=0.25):
            if self._stop.is_set():
                return  # never counted as received; the next run reads them again
        self._number += 1
        self._known = batch.position or self._known
        self._tally.received(batch)
        self._buffer.put(batch)
        self._frames, self._size = [], 0

    def _after(self, ending: Ending, began: float) -> bool:
        """Hand over what came before the end, and decide where and when to go on."""
        self._hand_over()
        if ending.end is End.STOPPED:
            self._told_to_stop = True
            return False
        if self._line is not None and self._line.error is not None:
            ending = self._cut(str(self._line.error))  # however it closed afterwards
        self._line = None
        # An orderly close says nothing of a disorder before it unless data came in between.
        self._clean = ending.end is End.CLOSED and (self._clean or self._got_data)
        if self._stop.is_set():
            return False
        if ending.ours:
            log.info("%s hung up while we waited for Elasticsearch; going back once there is room", self.host)
            while not self._buffer.wait_until_half_empty(0.25):
                if self._stop.is_set():
                    return False
            self._waited_at = float("-inf")
            return True
        if time.monotonic() - began >= _GOOD_SERVICE:
            self._backoff.reset()
            self._failures = 0
        self._failures += 1
        delay = self._backoff.next()
        left = self.host
        if self._failures >= _FAILURES_BEFORE_NEXT_HOST and len(self._servers) > 1:
            self._failures = 0
            self._servers.append(self._servers.pop(0))
        where = "again" if self.host == left else f"{self.host} instead"
        log.warning("%s: %s; trying %s in %s", left, ending.reason, where, format_duration(delay))
        return not self._stop.wait(delay)


def _closed(payload: bytes) -> Ending:
    code = struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else 1005
    reason = payload[2:].decode("utf-8", "replace")
    end = End.CLOSED if code in (1000, 1001) else End.CUT
    return Ending(end, f"closed with {code} {reason}".rstrip())
