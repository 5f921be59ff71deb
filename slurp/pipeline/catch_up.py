"""When `--catch-up` may end: everything that the servers had a moment ago is acknowledged."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from slurp.events.position import Position
from slurp.pipeline.batches import BatchQueue
from slurp.pipeline.progress import Counters
from slurp.pipeline.reader import Reader

log = logging.getLogger(__name__)

# A server that answers pings and has sent nothing for so many seconds has nothing more.
_SILENT = 5.0

# Seconds between two questions to a server, and before the first.
_PAUSE = 2.0
_PAUSE_AFTER_FAILURE = 10.0

# An answer is given up after so many seconds: the server may have been wiped and count from 1 again.
_KEPT = 60.0


@dataclass(frozen=True, slots=True)
class _Question:
    """What a host was asked for, and when; `before` is where its reader had come to by then."""

    host: str
    asked_at: float
    before: Position | None
    newest_event: Position | None

    def is_reached(self, position: Position | None, newest_us: int) -> bool:
        if (
            self.newest_event is None
            or position is None
            or position.host != self.newest_event.host
            or position == self.before
        ):
            return False
        if self.newest_event.cursor is not None and position.cursor is not None:
            return position.cursor >= self.newest_event.cursor
        return newest_us >= self.newest_event.time_us


class CatchUp:
    """Compare each reader with the newest event of its server, in rounds.

    A short connection asks the server for its newest event. Once that event is acknowledged, and it was
    asked for less than `within` seconds ago, the reader has caught up. If it was longer ago, the next
    round asks again; each round is shorter than the one before, as reading is faster than the stream.

    The times in events and the clock of this machine do not matter, so that neither a clock that is wrong
    nor an event with an odd time keeps the worker running. From servers without sequence numbers, medians
    of their own times are compared.

    A server that is silent has no newest event: its reader has caught up after five seconds in which the
    server answered pings, once nothing is in flight. A reader that is waiting for its first connection has
    not caught up, one whose last attempt failed does not count, but one reader has to be connected.
    """

    def __init__(
        self,
        readers: Iterable[Reader],
        counters: Counters,
        buffer: BatchQueue,
        within: float,
        ask: Callable[[str], Position | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ask` returns the position of a server's newest event, None when it sends none."""
        self._readers = tuple(readers)
        self._counters = counters
        self._queue = buffer
        self._within = within
        self._ask = ask
        self._clock = clock
        self._questions: dict[int, _Question] = {}
        self._due = dict.fromkeys((reader.number for reader in self._readers), clock() + _PAUSE)
        self._warned: set[str] = set()

    def step(self) -> bool:
        """Ask where that is due, which may take some seconds; return whether all have caught up."""
        for reader in self._readers:
            if reader.connected and not reader.silent_for and self._clock() >= self._due[reader.number]:
                self._ask_for(reader)
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
        question = self._questions.get(reader.number)
        return (
            question is not None
            and self._is_reached(reader, question)
            and self._clock() - question.asked_at <= self._within
        )

    def _is_reached(self, reader: Reader, question: _Question) -> bool:
        return question.is_reached(*self._counters.reached(reader.number))

    def _ask_for(self, reader: Reader) -> None:
        known, now = self._questions.get(reader.number), self._clock()
        if known is not None and known.host == reader.host and now - known.asked_at < _KEPT:
            is_reached = self._is_reached(reader, known)
            # Still on the way to it, or there.
            if (known.newest_event is not None and not is_reached) or (
                is_reached and now - known.asked_at <= self._within
            ):
                return
        host, (before, _) = reader.host, self._counters.reached(reader.number)
        found = self._ask(reader.server)
        self._questions[reader.number] = _Question(host, now, before, found)
        self._due[reader.number] = self._clock() + (_PAUSE if found else _PAUSE_AFTER_FAILURE)
        if found is None and host not in self._warned:
            self._warned.add(host)
            log.warning(
                "%s did not send its newest event on a second connection, so --catch-up can't tell yet "
                "whether it has caught up; asking again every %.0f s",
                host,
                _PAUSE_AFTER_FAILURE,
            )
