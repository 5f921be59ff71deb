"""Apply deletions, updates and changes of accounts once all earlier events of their reader are acknowledged.

The checkpoint of the reader does not pass them before. So the checkpoint, not a clock, keeps a deletion from
being lost: after a crash its event is read again, is a duplicate, and is applied again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from slurp.config import Config
from slurp.deletions.accounts import Accounts, Slice
from slurp.deletions.applied import Applied
from slurp.deletions.due import EVERYTHING, Due
from slurp.deletions.postponed import PostponedRemovals
from slurp.deletions.records import Redaction, redact, stored_removals
from slurp.deletions.targets import ACCOUNT_REASON
from slurp.deletions.unavailable_days import UnavailableDays
from slurp.deletions.versions import NotWritten, RatePause, Versions, not_written, rejected
from slurp.elastic.client import FAILURES, Elastic, describe
from slurp.elastic.error_classes import Item
from slurp.elastic.templates import STATE_INDEX
from slurp.events.removals import AccountChange, Removal, StoredVersion, latest
from slurp.pipeline.ack_tracker import RemovalSet
from slurp.pipeline.channel import Channel

log = logging.getLogger(__name__)


# A step refreshes the daily indices, which is most of its cost for few removals. So it is taken at this
# multiple of --refresh, at most every so many seconds, or for so many removals.
_REFRESHES = 4
_MAX_INTERVAL = 20.0
_MANY = 20_000
# Seconds after which a removal that cannot be applied no longer delays the checkpoint.
POSTPONE_AFTER = 300.0
RETRY_EVERY = 60.0
# Postponed removals are retried for so many seconds of each minute.
_RETRY_FOR = 10.0
_TRY_AGAIN_AFTER = 10.0


@dataclass(eq=False)
class _Waiting:
    """Removals that are not applied; `accounts` is empty once they are stored as pending, `versions` once
    their stored removals are among `records`."""

    removals: RemovalSet
    records: list[Removal]
    accounts: list[AccountChange]
    versions: list[StoredVersion]
    since: float
    try_at: float

    @classmethod
    def of(cls, removals: RemovalSet, now: float) -> _Waiting:
        records = [one for one in removals.removals if isinstance(one, Removal)]
        accounts = [one for one in removals.removals if isinstance(one, AccountChange)]
        versions = [one for one in removals.removals if isinstance(one, StoredVersion)]
        return cls(removals, records, accounts, versions, now, now)


class Deletions:
    """Applies what the readers have acknowledged. One thread calls `step`; the properties are for others.

    Attributes:
        redacted: number of documents that lost their content, by reason.
        postponed: number of documents in the state index with removals that could not be applied.
        pending_since: since when the oldest postponed removal or account waits (Unix seconds), else None.
    """

    def __init__(
        self,
        elastic: Elastic,
        config: Config,
        channel: Channel,
        due: Callable[[], Due],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`due` returns which deleted accounts are to be redacted, by what was read and acknowledged."""
        self.redacted = {"deleted": 0, "updated": 0, ACCOUNT_REASON: 0}
        self.postponed = 0
        self.pending_since: float | None = None
        self._counters = channel.counters
        self._due_now = due
        self._has_delay = config.deletions_delay > 0
        self._clock = clock
        self._interval = min(_REFRESHES * config.refresh, _MAX_INTERVAL)
        self._due = clock() + self._interval
        self._heartbeat: Callable[[], None] = lambda: None
        pause = RatePause(config.deletions_rate, channel.shutdown.stop, clock)
        self._versions = Versions(elastic, config.index, pause, self._beat)
        self._applied = Applied(elastic, config.index)
        self._store = PostponedRemovals(elastic, config.index)
        self._accounts = Accounts(elastic, config, self._versions, channel.inactive)
        self._days = UnavailableDays(elastic, self._versions, self._accounts)
        self._waiting: list[_Waiting] = []
        self._retry_at = clock()
        # Since when no step has succeeded; None if the last one has.
        self._failing_since: float | None = None
        # Of records and accounts, in the steps since there was nothing more to do immediately.
        self._errors: dict[str, Item] = {}

    def load(self) -> None:
        """Read what is known about accounts, before the first document is indexed.

        Logs a warning if earlier versions or runs have stored deletions without applying them.

        Raises the exceptions of the client, also if a privilege is missing.
        """
        self._versions.check_privileges()
        self._accounts.load()
        self._measure()
        if not self._applied.is_recorded():
            if self._versions.days():
                log.warning(
                    "deletions that were stored before are not applied; to apply them, also while the worker "
                    "runs: %s",
                    "python -m slurp.deletions --verify --yes",
                )
            else:
                self._applied.record()

    @property
    def waiting(self) -> int:
        """Number of deletions, updates and account events that are acknowledged and not applied."""
        return self._counters.unapplied

    @property
    def is_braked(self) -> bool:
        """Whether deleted accounts wait for the confirmation of the operator."""
        return self._accounts.brake.is_on

    @property
    def oldest(self) -> float:
        """Seconds that the oldest of them has waited, postponed ones included; 0 without any."""
        first = next(iter(self._waiting), None)
        waited = 0.0 if first is None else self._clock() - first.since
        since = self.pending_since
        return waited if since is None else max(waited, time.time() - since)

    @property
    def is_due(self) -> bool:
        """Whether it is time for the next step."""
        return self._clock() >= self._due or self._counters.untaken >= _MANY

    def step(self, heartbeat: Callable[[], None] = lambda: None) -> bool:
        """Apply what is ready; return whether there is more to do immediately.

        Raises the exceptions of the client, and NotWritten if a document could not be replaced.
        """
        self._heartbeat = heartbeat
        now = self._clock()
        # Before the removals are taken: they include all changes of accounts up to this time.
        # Without a delay nobody waits for the event that an account is active again.
        due = self._due_now() if self._has_delay else EVERYTHING
        self._waiting += [_Waiting.of(removals, now) for removals in self._counters.take_removals()]
        try:
            has_more = self._apply(due)
            self._failing_since = None
        except FAILURES as error:
            if isinstance(error, NotWritten):
                self._failing_since = None
            elif self._failing_since is None:
                self._failing_since = now
            self._postpone(describe(error))
            raise
        finally:
            self._due = self._clock() + self._interval
        return has_more

    def _beat(self) -> None:
        self._heartbeat()

    def _apply(self, due: Due) -> bool:
        now = self._clock()
        chosen = [waiting for waiting in self._waiting if waiting.try_at <= now]
        is_retry = now >= self._retry_at
        if chosen or is_retry:
            # Before the refresh: a document that is acknowledged later is compared with these accounts.
            changes = [change for one in chosen for change in one.accounts]
            if self._accounts.record(changes):
                for waiting in chosen:
                    waiting.accounts = []
            is_failing = self._failing_since is not None and now - self._failing_since >= POSTPONE_AFTER
            self._days.step(self._applied_until_us(), is_failing=is_failing)
            # Earlier versions are acknowledged, but a search finds them only after a refresh.
            self._versions.refresh()
            self._find_removals(chosen)
            result = self._counted(
                redact(self._versions, latest(removal for one in chosen for removal in one.records))
            )
            self._finish(chosen, result)
            self._errors |= result.failed
        missed, has_more = self._days.catch_up()
        self._errors |= self._counted(missed).failed
        if is_retry:
            self._retry_postponed()
            self._accounts.forget()
            self._retry_at = self._clock() + RETRY_EVERY
        # An account that a change still to be recorded may keep must not be redacted.
        is_recorded = not any(one.accounts for one in self._waiting)
        has_more |= self._work(due if is_recorded else None).has_more
        self._measure()
        if has_more:
            # What is left to do immediately must not delay the checkpoint.
            if self._errors:
                self._postpone(str(next(iter(self._errors.values()))))
            return True
        errors, self._errors = rejected(self._errors), {}
        if errors:
            raise not_written(errors)
        return False

    def _find_removals(self, chosen: Sequence[_Waiting]) -> None:
        """Add the stored removals of versions that may have been stored after these were applied."""
        uris = {version.uri for waiting in chosen for version in waiting.versions}
        if not uris:
            return
        found = stored_removals(self._versions, uris)
        for waiting in chosen:
            waiting.records += [found[one.uri] for one in waiting.versions if one.uri in found]
            waiting.versions = []

    def _work(self, due: Due | None) -> Slice:
        before = self._accounts.redacted
        try:
            done = self._accounts.work(due)
        finally:
            self.redacted[ACCOUNT_REASON] += self._accounts.redacted - before
        self._errors |= done.errors
        return done

    def _applied_until_us(self) -> int:
        """Return the time before which all removals were applied to all days that could be searched."""
        is_behind = self.postponed or self._accounts.pending_since is not None
        return 0 if is_behind else self._counters.applied_until_us

    def _finish(self, chosen: Sequence[_Waiting], result: Redaction) -> None:
        """Let the checkpoint pass what is applied."""
        left = []
        for waiting in chosen:
            waiting.records = [removal for removal in waiting.records if removal.uri in result.failed]
            if waiting.records or waiting.accounts or waiting.versions:
                waiting.try_at = self._clock() + _TRY_AGAIN_AFTER
                left.append(waiting)
            else:
                self._counters.applied(waiting.removals)
        self._waiting = left + [waiting for waiting in self._waiting if waiting not in chosen]

    def _postpone(self, reason: str) -> None:
        """Move removals that have waited too long to the state index, and let the checkpoint pass.

        Changes of accounts stay: they are stored there anyway, as soon as the state index can be written. So
        do versions whose removals are not known yet.
        """
        now = self._clock()
        old = [
            one
            for one in self._waiting
            if now - one.since >= POSTPONE_AFTER and not (one.accounts or one.versions)
        ]
        if not old:
            return
        removals = latest(removal for one in old for removal in one.records)
        self._store.add(removals.values(), reason)
        log.error(
            "%s deletion(s) or update(s) could not be applied for %.0f s; they are kept in %s and tried "
            "again every %.0f s: %s",
            f"{len(removals):,}",
            POSTPONE_AFTER,
            STATE_INDEX,
            RETRY_EVERY,
            reason,
        )
        for waiting in old:
            self._counters.applied(waiting.removals)
        self._waiting = [waiting for waiting in self._waiting if waiting not in old]
        self.postponed, _ = self._store.summary()

    def _retry_postponed(self) -> None:
        until = self._clock() + _RETRY_FOR
        tried: set[str] = set()
        while documents := [one for one in self._store.load() if one.id not in tried]:
            result = self._counted(
                redact(self._versions, latest(removal for one in documents for removal in one.removals))
            )
            for document in documents:
                left = [removal for removal in document.removals if removal.uri in result.failed]
                self._store.keep(document, left, next(map(str, result.failed.values()), ""))
                tried.add(document.id)
            if self._clock() >= until:
                return

    def _measure(self) -> None:
        """Update what is reported about pending work."""
        self.postponed, postponed_since = self._store.summary()
        times = [self._accounts.pending_since, postponed_since]
        self.pending_since = min((one.timestamp() for one in times if one is not None), default=None)

    def _counted(self, result: Redaction) -> Redaction:
        for reason, count in result.redacted.items():
            self.redacted[reason] += count
        return result
