"""Which cursor to ask a host for, and whether what it then sends is what was asked for."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Protocol

from slurp.backoff import Backoff
from slurp.events.frames import first_position
from slurp.events.position import LIVE, REWIND_US, Gap, Position, Resume
from slurp.jetstream.cursor_search import FirstEvent, find_cursor, first_event_of
from slurp.jetstream.resume_check import SAMPLE, Outcome, ResumeCheck
from slurp.jetstream.servers import host_of
from slurp.jetstream.stream_range import first_events, oldest_event
from slurp.jetstream.streams import V1Stream
from slurp.jetstream.subscription import Subscription
from slurp.pipeline.progress import Counters, Hold

log = logging.getLogger(__name__)

# Behind a filter nothing may come for long. After this the host is asked how far back it goes.
_ASK_FLOOR_AFTER = 15.0

# The checkpoint stays where it is meanwhile, so it must not take for ever: two minutes at most.
_FLOOR_ATTEMPTS = 3

_PROBE_TIMEOUT = 1.5


class GapCallback(Protocol):
    def __call__(self, reader: int, gap: Gap, hold: Hold | None = None) -> None:
        """`reader` has found `gap`; `hold` keeps the checkpoint before it already."""


def ignore(reader: int, gap: Gap, hold: Hold | None = None) -> None:
    """Take no gap, as a `GapCallback`."""


class ResumeCursors:
    """The position of one reader, and the checks of where its connections begin. For the reader's thread."""

    def __init__(
        self,
        subscription: Subscription,
        counters: Counters,
        known: Position,
        *,
        number: int,
        start: int | None,
        missed: GapCallback,
        stop: threading.Event,
        beat: Callable[[], None],
        ca: Path | None = None,
    ) -> None:
        """`known` is where an earlier run came to, or where to start; `start` the cursor, or LIVE, that the
        first connection asks for, None to resume behind `known`. `missed` takes the gaps; `beat` is called
        between the requests of a search."""
        self.known = known
        self._subscription = subscription
        self._filtered = bool(subscription.collections or subscription.dids)
        self._counters = counters
        self._number = number
        self._start = start
        self._missed = missed
        self._stop = stop
        self._beat = beat
        self._ca = ca
        self._by_time = False
        self._check: ResumeCheck | None = None
        self._newest: deque[int] = deque(maxlen=SAMPLE)
        # The server that begins too early when asked by time, the wire, and where it begins.
        self._early: tuple[str, bool, FirstEvent] | None = None
        self._may_seek = True
        self._ask_floor_at = 0.0
        self._asking: set[tuple[str, int]] = set()

    def ask_for(self, server: str) -> int | None:
        """Return the cursor for the next connection, None for a live one."""
        host, self._check = host_of(server), None
        if self._start == LIVE:
            return None
        resume = self._counters.resume(self._number, self.known, host, by_time=self._by_time)
        if self._start is not None and self.known.host == host and not self._by_time:
            resume = Resume(self._start, resume.known)
        self._check = ResumeCheck(resume, self._newest_us(), self._filtered)
        if resume.by_time and (searched := self._seek(server, resume.cursor)) is not None:
            self._check = replace(self._check, searched=searched)
            return searched
        return resume.cursor

    def known_to(self, host: str) -> int | None:
        """Return the sequence number of `host` up to which nothing is missing."""
        return self.known.cursor if self.known.host == host else None

    def connected(self, line: V1Stream, asked: int | None, now: float) -> None:
        """Take note of a connection that was asked for `asked`; `now` is monotonic."""
        if self._start == LIVE:
            # From here on a lost connection would lose events: no more live starts.
            self._start = None
        self._ask_floor_at = now + _ASK_FLOOR_AFTER
        if self._check is not None:
            self._check = replace(self._check, v2=line.name != V1Stream.name)
            if line.cursor != asked:
                self._check = self._check.for_oldest_event()

    def check(self, server: str, line: V1Stream, frames: Sequence[bytes]) -> str:
        """Compare the first events of a connection with what was asked for.

        Return why they must not be taken, empty when they may be: then the connection has to be made anew.
        """
        check, host = self._check, host_of(server)
        if check is None:
            return ""
        found = (first_position([frame], host) for frame in frames)
        first = list(islice((position for position in found if position is not None), SAMPLE))
        if not first:
            return ""
        self._check = None
        result = check.evaluate(first)
        if check.searched is not None:
            if result.outcome is not Outcome.WRONG_STREAM:
                return ""
            log.warning("%s %s; asking it by time", host, result.reason)
            self._may_seek = False
            return result.reason
        if result.outcome is Outcome.EARLY:
            if self._may_seek and (cursor := first[0].cursor) is not None:
                log.info("%s %s; looking for the sequence number of that time", host, result.reason)
                self._early = server, check.v2, FirstEvent(cursor, result.begins_us)
                return result.reason
        # Asked by time there is nothing else to try: a second finding would go round in circles.
        elif result.outcome is Outcome.WRONG_STREAM and not self._by_time:
            # They would move the position over what lies between. Asked by time they come again.
            log.warning("%s %s; asking it by time instead", host, result.reason)
            self._by_time = True
            return result.reason
        elif result.outcome is Outcome.GAP:
            self._missed(self._number, check.gap_before(replace(first[0], time_us=result.begins_us)))
        elif result.outcome is Outcome.UNSURE:
            self._ask_floor(server, check, result.begins_us)
        return ""

    def passed(self, position: Position) -> None:
        """Everything up to `position` has been handed over."""
        known = self.known
        # Read again after a rewind, it is no way back: else cuts that come one after the other would lead
        # farther and farther back. Asked by time, the numbers are new.
        again = (
            position.host == known.host
            and position.cursor is not None
            and known.cursor is not None
            and position.cursor <= known.cursor
        )
        if self._by_time or not again:
            self.known = position
        self._by_time, self._start, self._may_seek = False, None, True
        self._newest.append(position.time_us)

    def look_at_silence(self, server: str, now: float) -> None:
        """Nothing has come yet: behind a filter, ask once whether there is a gap."""
        check = self._check
        if check is not None and check.filtered and now >= self._ask_floor_at:
            self._ask_floor_at = float("inf")
            self._ask_floor(server, check)

    def _newest_us(self) -> int:
        """The time of the newest event we had: the second highest of some, as one may be of the future.

        Of the servers' clocks only: with ours behind theirs, everything would seem too new.
        """
        return sorted(self._newest)[-2:][0] if self._newest else 0

    def _seek(self, server: str, cursor: int) -> int | None:
        """Return the sequence number for a time before `cursor`, if the server has begun too early."""
        early, self._early = self._early, None
        if early is None or early[0] != server:
            return None
        _, v2, low = early
        everything = Subscription(self._subscription.index)

        def probe(number: int) -> FirstEvent | None:
            url = everything.v2_url(server, number, None) if v2 else everything.url(server, number)
            return first_event_of(first_events(url, _PROBE_TIMEOUT, self._ca))

        searched = find_cursor(low, cursor - REWIND_US, probe, self._go_on)
        if searched is None:
            log.info("%s: no sequence number found, reading all it sends", host_of(server))
            self._may_seek = False
        return searched

    def _go_on(self) -> bool:
        self._beat()
        return not self._stop.is_set()

    def _ask_floor(self, server: str, check: ResumeCheck, begins_us: int | None = None) -> None:
        """Whether the host goes back to where we were; beside the stream, which must be read.

        The checkpoint does not move until that is known. A host that never says has a possible gap, up to
        `begins_us`, or to now where nothing has come yet.
        """
        question = host_of(server), check.requested.known.time_us
        if question in self._asking:
            return  # after a lost connection: the first thread is still at it, and holds the checkpoint
        self._asking.add(question)
        hold = self._counters.hold(self._number)

        def ask() -> None:
            floor = self._find_floor(server, check)
            self._asking.discard(question)
            if floor is not None:
                if check.is_gap_before(floor):
                    self._missed(self._number, check.gap_before(floor), hold)
                else:
                    self._counters.release(hold)
            elif not self._stop.is_set():  # else the next start asks again, from where we stand
                to_us = int(time.time() * 1e6) if begins_us is None else begins_us
                first = Position(host_of(server), None, to_us)
                self._missed(self._number, check.gap_before(first, possible=True), hold)

        threading.Thread(target=ask, name=f"floor-{self._number}", daemon=True).start()

    def _find_floor(self, server: str, check: ResumeCheck) -> Position | None:
        """Return where the oldest events of `server` are; None when it does not say, or we stop."""
        backoff = Backoff(first=2.0)
        for attempt in range(_FLOOR_ATTEMPTS):
            if attempt and self._stop.wait(backoff.next()):
                return None
            try:
                if (floor := oldest_event(server, ca=self._ca, v2=check.v2)) is not None:
                    return floor
            except Exception:
                # A hold that nobody releases would stop the checkpoint for good.
                log.exception("asking %s how far back it goes failed, which is a bug", server)
        return None
