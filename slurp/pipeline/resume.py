"""The cursor of each connection of a reader, and the check that the server begins there."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Protocol

from slurp.backoff import Backoff
from slurp.events.frames import first_position
from slurp.events.position import LIVE, REWIND_US, Gap, Position, ResumePoint
from slurp.jetstream.cursor_search import FirstEvent, find_cursor, first_event_of
from slurp.jetstream.resume_check import SAMPLE, ResumeCheck, Verdict
from slurp.jetstream.servers import host_of
from slurp.jetstream.stream_range import first_events, oldest_event
from slurp.jetstream.streams import V1Stream
from slurp.jetstream.subscription import Subscription
from slurp.pipeline.ack_tracker import Hold
from slurp.pipeline.channel import Channel

log = logging.getLogger(__name__)

# With a filter there may be no event for long. After this many seconds a gap is looked for without one.
_CHECK_SILENCE_AFTER = 15.0

# The checkpoint does not move meanwhile, so this is bounded: two minutes at most.
_OLDEST_EVENT_ATTEMPTS = 3

_SEARCH_TIMEOUT = 1.5


class GapCallback(Protocol):
    """Receiver of the gaps that a reader finds."""

    def __call__(self, reader: int, gap: Gap, hold: Hold | None = None) -> None:
        """Handle `gap` of `reader`; `hold` already keeps the checkpoint before it."""


def ignore_gap(reader: int, gap: Gap, hold: Hold | None = None) -> None:
    """Ignore a gap, as a `GapCallback`."""


@dataclass(frozen=True)
class ReaderHooks:
    """Callbacks of a reader.

    Attributes:
        beat: called on each iteration of the thread.
        on_gap: called with each gap.
    """

    beat: Callable[[], None] = lambda: None
    on_gap: GapCallback = ignore_gap


@dataclass(frozen=True)
class StartPoint:
    """Where a reader starts.

    `position` is what earlier runs have reached, or the start chosen by the user. `cursor` is the cursor of
    the first connection, or LIVE; None to resume after `position`.
    """

    position: Position
    cursor: int | None = None


class ReaderPosition:
    """The position of one reader, and the checks of where its connections begin. For the reader's thread."""

    def __init__(
        self,
        subscription: Subscription,
        channel: Channel,
        start: StartPoint,
        number: int,
        hooks: ReaderHooks,
        ca: Path | None = None,
    ) -> None:
        """`number` is that of the reader."""
        self.known = start.position
        self._subscription = subscription
        self._filtered = bool(subscription.collections or subscription.dids)
        self._counters = channel.counters
        self._stop = channel.shutdown.stop
        self._number = number
        self._start = start.cursor
        self._hooks = hooks
        self._ca = ca
        self._by_time = False
        self._check: ResumeCheck | None = None
        self._newest: deque[int] = deque(maxlen=SAMPLE)
        # The server that begins too early when the cursor is a time, its protocol, and where it begins.
        self._early: tuple[str, bool, FirstEvent] | None = None
        self._may_search = True
        self._check_silence_at = 0.0
        self._looking_up: set[tuple[str, int]] = set()

    def next_cursor(self, server: str) -> int | None:
        """Return the cursor for the next connection to `server`, None for a live one."""
        host, self._check = host_of(server), None
        if self._start == LIVE:
            return None
        resume = self._counters.resume(self._number, self.known, host, by_time=self._by_time)
        if self._start is not None and self.known.host == host and not self._by_time:
            resume = ResumePoint(self._start, resume.known)
        self._check = ResumeCheck(resume, self._newest_us(), self._filtered)
        if resume.by_time and (searched := self._search(server, resume.cursor)) is not None:
            self._check = replace(self._check, searched=searched)
            return searched
        return resume.cursor

    def known_to(self, host: str) -> int | None:
        """Return the sequence number of `host` up to which all events were received."""
        return self.known.cursor if self.known.host == host else None

    def connected(self, stream: V1Stream, requested: int | None, now: float) -> None:
        """Record a new connection for which the cursor `requested` was sent; `now` is monotonic."""
        if self._start == LIVE:
            # From here on a lost connection would lose events: no more live starts.
            self._start = None
        self._check_silence_at = now + _CHECK_SILENCE_AFTER
        if self._check is not None:
            self._check = replace(self._check, v2=stream.name != V1Stream.name)
            if stream.cursor != requested:
                self._check = self._check.for_oldest_event()

    def check(self, server: str, stream: V1Stream, frames: Sequence[bytes]) -> str:
        """Compare the first events of a connection with the requested cursor.

        Return why they must be discarded and the connection be made again; '' to accept them.
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
            if result.verdict is not Verdict.WRONG_STREAM:
                return ""
            log.warning("%s %s; reconnecting with a time as cursor", host, result.reason)
            self._may_search = False
            return result.reason
        if result.verdict is Verdict.EARLY:
            if self._may_search and (cursor := first[0].cursor) is not None:
                log.info("%s %s; searching for the sequence number of that time", host, result.reason)
                self._early = server, check.v2, FirstEvent(cursor, result.begins_us)
                return result.reason
        # With a time as cursor there is no alternative left: a second finding would repeat forever.
        elif result.verdict is Verdict.WRONG_STREAM and not self._by_time:
            # They would move the position past the events between. With a time they are sent again.
            log.warning("%s %s; reconnecting with a time as cursor", host, result.reason)
            self._by_time = True
            return result.reason
        elif result.verdict is Verdict.GAP:
            gap = check.gap_before(replace(first[0], time_us=result.begins_us))
            self._hooks.on_gap(self._number, gap)
        elif result.verdict is Verdict.UNSURE:
            self._look_up_oldest_event(server, check, result.begins_us)
        return ""

    def passed(self, position: Position) -> None:
        """Record that all events up to `position` are in the queue."""
        known = self.known
        # Events read again after a rewind must not move the position back: else cuts in a row would lead
        # further and further back. After a start by time the numbers are new.
        again = (
            position.host == known.host
            and position.cursor is not None
            and known.cursor is not None
            and position.cursor <= known.cursor
        )
        if self._by_time or not again:
            self.known = position
        self._by_time, self._start, self._may_search = False, None, True
        self._newest.append(position.time_us)

    def check_silence(self, server: str, now: float) -> None:
        """Look for a gap once while a filtered stream has sent no event yet; `now` is monotonic."""
        check = self._check
        if check is not None and check.filtered and now >= self._check_silence_at:
            self._check_silence_at = float("inf")
            self._look_up_oldest_event(server, check)

    def _newest_us(self) -> int:
        """Return the second highest of the last times, as one may be in the future; 0 without any.

        By the servers' clocks only: with ours behind them, all events would seem too new.
        """
        return sorted(self._newest)[-2:][0] if self._newest else 0

    def _search(self, server: str, cursor: int) -> int | None:
        """Return the sequence number for a time before `cursor`, if the server began too early."""
        early, self._early = self._early, None
        if early is None or early[0] != server:
            return None
        _, v2, low = early
        unfiltered = Subscription(self._subscription.index)

        def probe(number: int) -> FirstEvent | None:
            url = unfiltered.v2_url(server, number, None) if v2 else unfiltered.url(server, number)
            return first_event_of(first_events(url, _SEARCH_TIMEOUT, self._ca))

        searched = find_cursor(low, cursor - REWIND_US, probe, self._may_continue)
        if searched is None:
            log.info("%s: no sequence number found, reading all events that it sends", host_of(server))
            self._may_search = False
        return searched

    def _may_continue(self) -> bool:
        self._hooks.beat()
        return not self._stop.is_set()

    def _look_up_oldest_event(self, server: str, check: ResumeCheck, begins_us: int | None = None) -> None:
        """Find out on a thread whether the server still has the events after our position.

        The stream is read meanwhile, but the checkpoint does not move. If the server does not report it, the
        gap is a possible one that ends at `begins_us`, or now if no event was received yet.
        """
        lookup = host_of(server), check.requested.known.time_us
        if lookup in self._looking_up:
            return  # after a lost connection: the first thread still runs, and holds the checkpoint
        self._looking_up.add(lookup)
        hold = self._counters.hold(self._number)

        def work() -> None:
            oldest = self._oldest_event(server, check)
            self._looking_up.discard(lookup)
            if oldest is not None:
                if check.is_gap_before(oldest):
                    self._hooks.on_gap(self._number, check.gap_before(oldest), hold)
                else:
                    self._counters.release(hold)
            elif not self._stop.is_set():  # else the next start looks it up again, from this position
                to_us = int(time.time() * 1e6) if begins_us is None else begins_us
                first = Position(host_of(server), None, to_us)
                self._hooks.on_gap(self._number, check.gap_before(first, possible=True), hold)

        threading.Thread(target=work, name=f"oldest-event-{self._number}", daemon=True).start()

    def _oldest_event(self, server: str, check: ResumeCheck) -> Position | None:
        """Return the position of the server's oldest event; None when it does not report it, or we stop."""
        backoff = Backoff(first=2.0)
        for attempt in range(_OLDEST_EVENT_ATTEMPTS):
            if attempt and self._stop.wait(backoff.next()):
                return None
            try:
                if (oldest := oldest_event(server, ca=self._ca, v2=check.v2)) is not None:
                    return oldest
            except Exception:
                # A hold that is never released would stop the checkpoint.
                log.exception("looking up the oldest event of %s failed, which is a bug", server)
        return None
