"""The reader thread: frames from one Jetstream server at a time into batches, and what to do when it ends."""

from __future__ import annotations

import logging
import struct
import threading
import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

import websocket
from websocket import ABNF

from slurp.backoff import Backoff
from slurp.config import Config
from slurp.events.position import Position
from slurp.jetstream.bootstrap import BootstrapDetector
from slurp.jetstream.connection import close_connection, describe_error
from slurp.jetstream.dialer import Dialer
from slurp.jetstream.servers import host_of
from slurp.jetstream.streams import V1Stream
from slurp.jetstream.subscription import Subscription
from slurp.pipeline.batches import Batch, BatchQueue
from slurp.pipeline.progress import Counters
from slurp.pipeline.resume import GapCallback, ResumeCursors, ignore
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
# A server that lives answers a ping within so many seconds.
_SOON = 2.0
# Remembered until they are answered, which some servers never do.
_PINGS = 16

# With collection filters pongs keep a quiet stream alive, but identity and account events still come.
_QUIET_TIMES = 10

# A change of hosts for the better waits until little would be read again.
_SMALL_LAG_US = 30_000_000
_SILENT = 5.0

# A host that we left for its failures is no better one for a while, each time for twice as long.
_BARRED = 1800.0
_BARRED_MOST = 86_400.0


class End(Enum):
    STOPPED = "stopped"
    CLOSED = "closed in order"
    CUT = "cut"
    STALLED = "stalled"
    FOREIGN = "not the place that was asked for"
    CHANGED = "another host is better"


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
        buffer: BatchQueue,
        counters: Counters,
        stop: threading.Event,
        known: Position,
        *,
        start: int | None = None,
        number: int = 1,
        missed: GapCallback = ignore,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """`servers` are ranked, the best one first; `known`, `start` and `missed` are those of
        `ResumeCursors`; `beat` is called whenever the thread comes round."""
        self._beat = beat
        self.number = number
        self._subscription = subscription
        self._dialer = Dialer(config, subscription)
        self._cursors = ResumeCursors(
            subscription,
            counters,
            known,
            number=number,
            start=start,
            missed=missed,
            stop=stop,
            beat=beat,
            ca=config.jetstream_ca,
        )
        self._line: V1Stream | None = None
        self._bootstrap = BootstrapDetector()
        # The best one first, as the last probe found them; `_server` is the one in use.
        self._servers = list(servers)
        self._server = self._servers[0]
        self._queue = buffer
        self._counters = counters
        self._stop = stop
        self._batch_events = config.batch
        self._flush = config.flush
        self._stall = config.stall_timeout
        self._backoff = Backoff()
        self._failures = 0
        self._batches = 0
        self._frames: list[bytes] = []
        self._size = 0
        self._began = 0.0
        self._waited_at = float("-inf")
        self._last_data = time.monotonic()
        self._answered = float("-inf")
        self._lively_since = 0.0
        # Nobody but --catch-up asks whether a silent server lives before it is stalled.
        self._ping_when_silent = _PING_WHEN_SILENT if config.catch_up else float("inf")
        self._connected = False
        self._connections = 0
        self._down_since = time.monotonic()
        self._trouble = ""
        self._got_data = False
        self._away = False
        self._garbage_since: float | None = None
        self._foreign = ""
        self._advice: tuple[tuple[str, ...], str] = ((), "")
        self._left: dict[str, tuple[float, int]] = {}

    @property
    def server(self) -> str:
        return self._server

    @property
    def host(self) -> str:
        return host_of(self._server)

    @property
    def connected(self) -> bool:
        return self._connected

    @property
    def away(self) -> bool:
        """Not connected, and the last attempt failed."""
        return self._away

    @property
    def down_for(self) -> float | None:
        """Seconds without a connection; None while there is one."""
        return None if self._connected else time.monotonic() - self._down_since

    @property
    def was_connected(self) -> bool:
        """Whether it has had a connection at all."""
        return self._connections > 0

    @property
    def trouble(self) -> str:
        """Why the last connection ended, or could not be made."""
        return self._trouble

    @property
    def silent_for(self) -> float:
        """For how many seconds the server has had no data for us, though it lives: since the last data frame
        or the beginning of the connection it has answered each of our pings soon."""
        return max(0.0, self._answered - max(self._last_data, self._lively_since))

    def prefer(self, ranked: Sequence[str], reason: str = "") -> None:
        """The order in which to try servers from now on; with a reason, go to the first at a quiet moment.

        For another thread; a name that is not ours is left out.
        """
        self._advice = tuple(ranked), reason

    def in_cooldown(self, server: str) -> bool:
        """Whether it is too early to come back to a server that was left for its failures."""
        return time.monotonic() < self._left.get(server, (0.0, 0))[0]

    def step(self) -> bool:
        """One connection. False when the reader was told to stop."""
        self._beat()
        if self._stop.is_set():
            return False
        server = self._server
        began = time.monotonic()
        try:
            line = self._connect(server)
        except (OSError, websocket.WebSocketException) as error:
            self._away = True
            return self._after(Ending(End.CUT, f"can't connect: {describe_error(error)}"), began)
        try:
            ending = self._pump(line)
        finally:
            self._down_since = time.monotonic()
            self._connected, self._away = False, True
            close_connection(line.connection)
        return self._after(ending, began)

    def _connect(self, server: str) -> V1Stream:
        host = host_of(server)
        self._foreign = ""
        cursor = self._cursors.ask_for(server)
        line = self._line = self._dialer.connect(server, cursor, self._cursors.known_to(host))
        self._cursors.connected(line, cursor, time.monotonic())
        line.connection.settimeout(min(max(self._flush / 4, 0.02), 0.5))
        start = "live" if line.cursor is None else f"from cursor {line.cursor}"
        log.info("connected to %s, reading %s, %s wire", host, start, line.name)
        if self._connections:
            self._counters.reconnected()
        self._connections += 1
        self._got_data = False
        self._last_data = time.monotonic()
        self._connected, self._away = True, False
        self._garbage_since = None
        return line

    def _pump(self, line: V1Stream) -> Ending:
        """Read until the connection ends, stalls, or the stop event is set."""
        now = self._last_data = last_pong = last_ping = time.monotonic()
        connection, decompress = line.connection, line.decompress
        pings: dict[bytes, float] = {}
        frames, inbox = self._frames, list[tuple[int, bytes]]()
        while not self._stop.is_set():
            self._beat()
            if not inbox:
                try:
                    inbox = connection.receive()
                except websocket.WebSocketTimeoutException:
                    pass
                except (websocket.WebSocketException, OSError) as error:
                    return self._cut(describe_error(error))
            silent = not inbox
            now = time.monotonic()
            if not frames:
                self._began = now
            had, size, done = len(frames), self._size, 0
            full, goodbye = False, None
            for done, (opcode, data) in enumerate(inbox, start=1):  # noqa: B007 - used behind the loop
                if opcode == ABNF.OPCODE_TEXT or opcode == ABNF.OPCODE_BINARY:
                    frames.append(frame := decompress(data))
                    size += len(frame)
                    # A small frame may be a large one when it is unpacked.
                    if full := len(frames) >= self._batch_events or size >= _MAX_BATCH_BYTES:
                        break
                elif opcode == ABNF.OPCODE_PONG:
                    last_pong = now
                    self._note_pong(pings.pop(data, None), now)
                elif opcode == ABNF.OPCODE_CLOSE:
                    goodbye = data
                    break
            if len(frames) > had:
                self._size, self._last_data, self._got_data = size, now, True
            if goodbye is not None:
                return _closed(goodbye)
            inbox = inbox[done:]
            due = full or (frames and now - self._began >= self._flush)
            # Before the hand-over: after it, something waits for an answer.
            if (due or silent) and self._advice[1] and self._is_quiet(now):
                return Ending(End.CHANGED, self._advice[1])
            if due:
                self._hand_over()
                if line.error is not None:
                    return self._cut(str(line.error))
                frames = self._frames
                if self._foreign:
                    return Ending(End.FOREIGN, self._foreign)
                if self._garbage_since is not None and now - self._garbage_since >= self._stall:
                    garbage = format_duration(now - self._garbage_since)
                    return Ending(End.STALLED, f"nothing but garbage for {garbage}")
                waited = time.monotonic() - now
                if waited > _OUR_WAIT:
                    self._waited_at = now = self._last_data = last_pong = last_ping = now + waited
            pause = now - last_ping
            if pause >= self._stall / 3 or min(pause, now - self._last_data) >= self._ping_when_silent:
                last_ping = now
                if pings and now - next(iter(pings.values())) > _SOON:
                    self._lively_since = now  # a server that was stuck has all its data yet to send
                payload = str(now).encode()
                pings[payload] = now
                if len(pings) > _PINGS:
                    del pings[next(iter(pings))]
                try:
                    connection.ping(payload)
                except (websocket.WebSocketException, OSError) as error:
                    return self._cut(describe_error(error))
            if self._is_stalled(now, last_pong):
                return Ending(End.STALLED, f"no data for {format_duration(now - self._last_data)}")
            if silent and not self._got_data:
                self._cursors.look_at_silence(self.server, now)
        return Ending(End.STOPPED, "told to stop")

    def _note_pong(self, sent: float | None, now: float) -> None:
        if sent is None:
            return
        if now - sent > _SOON:
            self._lively_since = now
        self._answered = sent

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
        decoded = self._line.decode(self._frames, self.host)
        if not decoded.frames:
            self._frames, self._size = [], 0
            return
        self._foreign = self._cursors.check(self.server, self._line, decoded.frames)
        if self._foreign:
            self._frames, self._size = [], 0
            return
        batch = Batch(
            reader=self.number,
            number=self._batches + 1,
            host=self.host,
            frames=decoded.frames,
            size=self._size,
            position=decoded.position,
            announced=decoded.announced,
            bootstrap=self._bootstrap.observe(decoded.frames, self.host, decoded.announced),
        )
        while not self._queue.reserve(batch, timeout=0.25):
            self._beat()
            if self._stop.is_set():
                return  # never counted as received; the next run reads them again
        self._batches += 1
        if batch.position is not None:
            self._cursors.passed(batch.position)
            self._garbage_since = None
        elif self._garbage_since is None:
            self._garbage_since = self._began
        self._counters.received(batch)
        self._queue.put(batch)
        self._frames, self._size = [], 0

    def _after(self, ending: Ending, began: float) -> bool:
        """Hand over what came before the end, and decide where and when to go on."""
        self._hand_over()
        if ending.end is End.STOPPED:
            return False
        if self._line is not None and self._line.error is not None:
            ending = self._cut(str(self._line.error))  # however it closed afterwards
        self._line = None
        self._trouble = ending.reason
        if self._stop.is_set():
            return False
        if ending.end is End.FOREIGN:
            return True
        if ending.end is End.CHANGED:
            self._change(ending.reason)
            return True
        if ending.ours:
            log.info("%s hung up while we waited for Elasticsearch; going back once there is room", self.host)
            while not self._queue.wait_until_half_empty(0.25):
                self._beat()
                if self._stop.is_set():
                    return False
            self._waited_at = float("-inf")
            return True
        if self._served_well(ending, began):
            self._backoff.reset()
            self._failures = 0
        self._failures += 1
        delay = self._backoff.next()
        left = self.host
        if self._failures >= _FAILURES_BEFORE_NEXT_HOST and len(self._servers) > 1:
            self._failures = 0
            self._leave()
        where = "again" if self.host == left else f"{self.host} instead"
        log.warning("%s: %s; trying %s in %s", left, ending.reason, where, format_duration(delay))
        return not self._stop.wait(delay)

    def _served_well(self, ending: Ending, began: float) -> bool:
        """A handshake and a long silence are no good service."""
        served = self._last_data - began if ending.end is End.STALLED else time.monotonic() - began
        return self._got_data and served >= _GOOD_SERVICE

    def _leave(self) -> None:
        """To the best of the other servers, and back here no sooner than after a while."""
        ranked = {server: place for place, server in enumerate(self._advice[0])}
        self._servers.sort(key=lambda server: ranked.get(server, len(ranked)))
        times = self._left.get(self._server, (0.0, 0))[1]
        barred = min(_BARRED * 2.0**times, _BARRED_MOST)
        self._left[self._server] = time.monotonic() + barred, times + 1
        better = next((one for one in self._servers if not self.in_cooldown(one)), None)
        if better is None:
            # All have failed, which says more about the network than about them: take turns.
            self._left.clear()
            place = self._servers.index(self._server)
            better = self._servers[(place + 1) % len(self._servers)]
        self._server = better

    def _change(self, reason: str) -> None:
        ranked = self._advice[0]
        self._advice, better = (ranked, ""), ranked[0]
        if better not in self._servers:
            return
        log.info("going over from %s to %s: %s", self.host, host_of(better), reason)
        self._server = better
        self._failures = 0
        self._backoff.reset()

    def _is_quiet(self, now: float) -> bool:
        """Nothing waits for an answer, and the stream is at what happens now, or silent."""
        lag = time.time() * 1e6 - self._cursors.known.time_us
        return self._queue.events == 0 and (lag < _SMALL_LAG_US or now - self._last_data >= _SILENT)


def _closed(payload: bytes) -> Ending:
    code = struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else 1005
    reason = payload[2:].decode("utf-8", "replace")
    end = End.CLOSED if code in (1000, 1001) else End.CUT
    return Ending(end, f"closed with {code} {reason}".rstrip())
