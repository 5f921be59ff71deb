"""Reader threads: keep one connection to a Jetstream server, and put its frames into the queue as batches."""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import websocket
from websocket import ABNF

from slurp.backoff import Backoff
from slurp.config import Config
from slurp.jetstream.connection import close_connection, describe_error
from slurp.jetstream.dialer import Dialer
from slurp.jetstream.failover import Failover
from slurp.jetstream.liveness import Liveness
from slurp.jetstream.servers import host_of
from slurp.jetstream.streams import V1Stream
from slurp.jetstream.subscription import Subscription
from slurp.pipeline.batcher import MAX_BATCH_BYTES, Batcher
from slurp.pipeline.channel import Channel
from slurp.pipeline.resume import ReaderHooks, ReaderPosition, StartPoint
from slurp.units import format_duration

log = logging.getLogger(__name__)

# The failure count resets after one minute of received data.
_RESET_AFTER = 60.0

# A server closes the connection to a client that does not read for 5 s. Our own wait for the queue may be the
# reason for a close even a while later: first the client receives what the kernel has buffered.
_LONG_WAIT = 2.5
_LONG_WAIT_REMEMBERED = 60.0

_POLL = 0.25

# A change to a better server waits until few events would be read again.
_SMALL_LAG_US = 30_000_000
_SILENT = 5.0


class End(Enum):
    """Why a connection ended."""

    STOPPED = "stopped"
    CUT = "cut"
    STALLED = "stalled"
    WRONG_STREAM = "it began at another place than requested"
    CHANGED = "another server is better"


class Ending(NamedTuple):
    """How a connection ended. `caused_by_us` when the likely reason is that we did not read for long."""

    end: End
    reason: str
    caused_by_us: bool = False


@dataclass(frozen=True)
class Source:
    """The servers that one reader may read, ranked with the best one first, and where it starts."""

    servers: Sequence[str]
    start: StartPoint


class Reader:
    """Keeps one subscription connected. `step` is one connection, from its handshake to its end."""

    def __init__(
        self,
        config: Config,
        source: Source,
        channel: Channel,
        number: int = 1,
        hooks: ReaderHooks | None = None,
    ) -> None:
        """`number` identifies the reader within the worker, from 1."""
        self.number = number
        self.failover = Failover(source.servers)
        self._hooks = hooks or ReaderHooks()
        self._subscription = Subscription.of(config)
        self._dialer = Dialer(config, self._subscription)
        self._cursors = ReaderPosition(
            self._subscription, channel, source.start, number, self._hooks, config.jetstream_ca
        )
        self._batcher = Batcher(channel, self._cursors, number, self._hooks)
        self._queue = channel.queue
        self._counters = channel.counters
        self._stop = channel.shutdown.stop
        self._config = config
        self._backoff = Backoff()
        self._stream: V1Stream | None = None
        self._liveness = self._new_liveness()
        # When our last long wait for the queue ended.
        self._waited_at = float("-inf")
        self._received_data = False
        self._connections = 0
        self._connected = False
        self._disconnected = False
        self._down_since = time.monotonic()
        self._last_error = ""

    @property
    def server(self) -> str:
        """URL of the current server."""
        return self.failover.current

    @property
    def host(self) -> str:
        """Host of the current server."""
        return host_of(self.server)

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._connected

    @property
    def away(self) -> bool:
        """Whether there is no connection, because one ended or could not be made."""
        return self._disconnected

    @property
    def down_for(self) -> float | None:
        """Seconds without a connection; None while there is one."""
        return None if self._connected else time.monotonic() - self._down_since

    @property
    def was_connected(self) -> bool:
        """Whether there has been a connection."""
        return self._connections > 0

    @property
    def last_error(self) -> str:
        """Why the last connection ended, or could not be made."""
        return self._last_error

    @property
    def silent_for(self) -> float:
        """Seconds for which the server answered pings and had no data to send.

        With `--catch-up` to a second, else to a third of `--stall-timeout`.
        """
        return self._liveness.silent_for

    def step(self) -> bool:
        """Run one connection; return False when the reader has to stop."""
        self._hooks.beat()
        if self._stop.is_set():
            return False
        server = self.server
        began = time.monotonic()
        try:
            stream = self._connect(server)
        except (OSError, websocket.WebSocketException) as error:
            self._disconnected = True
            return self._after(Ending(End.CUT, f"cannot connect: {describe_error(error)}"), began)
        try:
            ending = self._read(stream)
        finally:
            self._down_since = time.monotonic()
            self._connected, self._disconnected = False, True
            close_connection(stream.connection)
        return self._after(ending, began)

    def _connect(self, server: str) -> V1Stream:
        host = host_of(server)
        cursor = self._cursors.next_cursor(server)
        stream = self._stream = self._dialer.connect(server, cursor, self._cursors.known_to(host))
        self._cursors.connected(stream, cursor, time.monotonic())
        stream.connection.settimeout(min(max(self._config.flush / 4, 0.02), 0.5))
        start = "live" if stream.cursor is None else f"from cursor {stream.cursor}"
        log.info("connected to %s, reading %s, protocol %s", host, start, stream.name)
        if self._connections:
            self._counters.reconnected()
        self._connections += 1
        self._received_data = False
        self._liveness = self._new_liveness()
        self._connected, self._disconnected = True, False
        self._batcher.undecodable_since = None
        return stream

    def _new_liveness(self) -> Liveness:
        return Liveness(
            self._subscription,
            self._config.stall_timeout,
            time.monotonic(),
            ping_when_silent=self._config.catch_up,
        )

    def _read(self, stream: V1Stream) -> Ending:
        """Read until the connection ends, stalls, or the stop event is set."""
        liveness, batcher, max_events = self._liveness, self._batcher, self._config.batch
        liveness.restart(time.monotonic())
        connection, decompress = stream.connection, stream.decompress
        frames, inbox = batcher.frames, list[tuple[int, bytes]]()
        while not self._stop.is_set():
            self._hooks.beat()
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
                batcher.began = now
            before, size, done = len(frames), batcher.size, 0
            full, close = False, None
            for done, (opcode, data) in enumerate(inbox, start=1):  # noqa: B007 - used after the loop
                if opcode == ABNF.OPCODE_TEXT or opcode == ABNF.OPCODE_BINARY:
                    frames.append(frame := decompress(data))
                    size += len(frame)
                    # One at a time: a small compressed frame may become a large one.
                    if full := len(frames) >= max_events or size >= MAX_BATCH_BYTES:
                        break
                elif opcode == ABNF.OPCODE_PONG:
                    liveness.pong(data, now)
                elif opcode == ABNF.OPCODE_CLOSE:
                    close = data
                    break
            if len(frames) > before:
                batcher.size, self._received_data = size, True
                liveness.data(now)
            if close is not None:
                return _closed(close)
            inbox = inbox[done:]
            due = full or (frames and now - batcher.began >= self._config.flush)
            # Before the batch is queued: after that there are events in flight.
            if (due or silent) and self.failover.reason_to_change and self._may_change(now):
                return Ending(End.CHANGED, self.failover.reason_to_change)
            if due:
                if (ending := self._hand_over(stream, now)) is not None:
                    return ending
                frames = batcher.frames
                waited = time.monotonic() - now
                if waited > _LONG_WAIT:
                    self._waited_at = now = now + waited
                    liveness.restart(now)
            if (ping := liveness.next_ping(now)) is not None:
                try:
                    connection.ping(ping)
                except (websocket.WebSocketException, OSError) as error:
                    return self._cut(describe_error(error))
            if liveness.is_stalled(now):
                return Ending(End.STALLED, f"no data for {format_duration(now - liveness.last_data)}")
            if silent and not self._received_data:
                self._cursors.check_silence(self.server, now)
        return Ending(End.STOPPED, "stopped")

    def _hand_over(self, stream: V1Stream, now: float) -> Ending | None:
        """Queue the frames as a batch; return the ending when the connection has to be given up."""
        discarded = self._batcher.hand_over(stream, self.server)
        if stream.error is not None:
            return self._cut(str(stream.error))
        if discarded:
            return Ending(End.WRONG_STREAM, discarded)
        since = self._batcher.undecodable_since
        if since is not None and now - since >= self._config.stall_timeout:
            return Ending(End.STALLED, f"no frame could be decoded for {format_duration(now - since)}")
        return None

    def _cut(self, reason: str) -> Ending:
        caused_by_us = time.monotonic() - self._waited_at <= _LONG_WAIT_REMEMBERED
        return Ending(End.CUT, reason, caused_by_us)

    def _after(self, ending: Ending, began: float) -> bool:
        """Queue the frames received before the end, and wait for the next attempt; False to stop."""
        if self._stream is not None:
            self._batcher.hand_over(self._stream, self.server)
        if ending.end is End.STOPPED:
            return False
        if self._stream is not None and self._stream.error is not None:
            ending = self._cut(str(self._stream.error))  # however it was closed afterwards
        self._stream = None
        self._last_error = ending.reason
        if self._stop.is_set():
            return False
        if ending.end is End.WRONG_STREAM:
            return True
        if ending.end is End.CHANGED:
            self._change(ending.reason)
            return True
        if ending.caused_by_us:
            return self._wait_for_queue()
        if self._was_good(ending, began):
            self._backoff.reset()
            self.failover.succeeded()
        delay = self._backoff.next()
        host = self.host
        self.failover.failed()
        wait = format_duration(delay)
        if self.host == host:
            log.warning("%s: %s; reconnecting in %s", host, ending.reason, wait)
        else:
            log.warning("%s: %s; failing over to %s in %s", host, ending.reason, self.host, wait)
        return not self._stop.wait(delay)

    def _wait_for_queue(self) -> bool:
        """Wait until the queue is half empty; return False to stop."""
        log.info(
            "%s closed the connection while the queue was full; reconnecting once it is half empty", self.host
        )
        while not self._queue.wait_until_half_empty(_POLL):
            self._hooks.beat()
            if self._stop.is_set():
                return False
        self._waited_at = float("-inf")
        return True

    def _was_good(self, ending: Ending, began: float) -> bool:
        """Return whether the connection delivered data for long enough to reset the failure count."""
        now = self._liveness.last_data if ending.end is End.STALLED else time.monotonic()
        return self._received_data and now - began >= _RESET_AFTER

    def _change(self, reason: str) -> None:
        host = self.host
        if self.failover.change():
            log.info("switching from %s to %s: %s", host, self.host, reason)
            self._backoff.reset()

    def _may_change(self, now: float) -> bool:
        """Return whether nothing is in flight, and the stream is live or silent."""
        lag = time.time() * 1e6 - self._cursors.known.time_us
        return self._queue.events == 0 and (lag < _SMALL_LAG_US or now - self._liveness.last_data >= _SILENT)


def _closed(payload: bytes) -> Ending:
    """Return the ending for a close frame (RFC 6455, section 5.5.1)."""
    code = struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else 1005
    reason = payload[2:].decode("utf-8", "replace")
    return Ending(End.CUT, f"closed with {code} {reason}".rstrip())
