"""`--catch-up`: whether all that the servers had a moment ago is acknowledged."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from slurp.events.position import Position
from slurp.pipeline.ack_tracker import RemovalSet
from slurp.pipeline.channel import Channel
from slurp.pipeline.reader import Reader

log = logging.getLogger(__name__)

# A server that answers pings and sends no data for this many seconds has no more events.
_SILENT = 5.0

# Seconds between two requests to a server, and before the first one.
_PAUSE = 2.0
_PAUSE_AFTER_FAILURE = 10.0

# A target is discarded after this many seconds: the server may have been wiped and count from 1 again.
_TARGET_VALID = 60.0


@dataclass(frozen=True, slots=True)
class _Target:
    """The newest event of a host at `requested_at`; `before` is the position of its reader at that time."""

    host: str
    requested_at: float
    before: Position | None
    newest: Position | None

    def is_reached(self, position: Position | None, newest_us: int) -> bool:
        if (
            self.newest is None
            or position is None
            or position.host != self.newest.host
            or position == self.before
        ):
            return False
        if self.newest.cursor is not None and position.cursor is not None:
            return position.cursor >= self.newest.cursor
        return newest_us >= self.newest.time_us


class CatchUp:
    """Compares each reader with the newest event of its server, in rounds.

    A short connection returns the server's newest event. Once that event is acknowledged, and it was
    requested less than `within` seconds ago, the reader has caught up. If it was longer ago, the next round
    requests it again; each round is shorter than the one before, as reading is faster than the stream.

    Neither the times in events nor the clock of this machine are used, so that a wrong clock or an event with
    an odd time does not keep the worker running. For servers without sequence numbers, medians of the
    servers' own times are compared.

    In the end the deletions that are acknowledged by then must be applied.

    A server that is silent has no newest event: its reader has caught up after five seconds in which the
    server answered pings, once nothing is in flight. A reader that waits for its first connection has not
    caught up; one whose last attempt failed does not count, but one reader has to be connected.
    """

    def __init__(
        self,
        readers: Iterable[Reader],
        channel: Channel,
        within: float,
        newest_event: Callable[[str], Position | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`newest_event` returns the position of a server's newest event, None when it sends none."""
        self._readers = tuple(readers)
        self._counters = channel.counters
        self._queue = channel.queue
        self._within = within
        self._newest_event = newest_event
        self._clock = clock
        self._targets: dict[int, _Target] = {}
        self._due = dict.fromkeys((reader.number for reader in self._readers), clock() + _PAUSE)
        self._warned: set[str] = set()
        # Those to be applied; None before all readers have caught up.
        self._removals: set[RemovalSet] | None = None

    def step(self) -> bool:
        """Request new targets that are due, which may take seconds; return whether all have caught up."""
        if self._removals is None:
            if not self._have_caught_up():
                return False
            self._removals = self._counters.unapplied_sets()
        return self._removals.isdisjoint(self._counters.unapplied_sets())

    def _have_caught_up(self) -> bool:
        for reader in self._readers:
            if reader.connected and not reader.silent_for and self._clock() >= self._due[reader.number]:
                self._update_target(reader)
        return (
            not self._counters.held
            and any(reader.connected for reader in self._readers)
            and all(self._has_caught_up(reader) for reader in self._readers)
        )

    def _has_caught_up(self, reader: Reader) -> bool:
        if reader.away:
            return True
        if not reader.connected:
            return False
        if reader.silent_for >= _SILENT:
            return self._queue.events == 0
        target = self._targets.get(reader.number)
        return (
            target is not None
            and self._is_reached(reader, target)
            and self._clock() - target.requested_at <= self._within
        )

    def _is_reached(self, reader: Reader, target: _Target) -> bool:
        return target.is_reached(*self._counters.reached(reader.number))

    def _update_target(self, reader: Reader) -> None:
        target, now = self._targets.get(reader.number), self._clock()
        if target is not None and target.host == reader.host and now - target.requested_at < _TARGET_VALID:
            is_reached = self._is_reached(reader, target)
            # Not reached yet, or reached in time.
            if (target.newest is not None and not is_reached) or (
                is_reached and now - target.requested_at <= self._within
            ):
                return
        host, (before, _) = reader.host, self._counters.reached(reader.number)
        newest = self._newest_event(reader.server)
        self._targets[reader.number] = _Target(host, now, before, newest)
        self._due[reader.number] = self._clock() + (_PAUSE if newest else _PAUSE_AFTER_FAILURE)
        if newest is None and host not in self._warned:
            self._warned.add(host)
            log.warning(
                "%s did not send its newest event on a second connection, so --catch-up cannot determine yet "
                "whether it has caught up; trying again every %.0f s",
                host,
                _PAUSE_AFTER_FAILURE,
            )
