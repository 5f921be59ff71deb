"""Deletion of days past retention, by the worker and by a lifecycle policy if the cluster supports ILM.

The policy counts from the creation of an index and also acts while no worker is running. The worker counts
from the day in the name of an index, which is also correct for an index that was filled later. So the worker
deletes days whether or not there is a policy.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from elasticsearch import AuthorizationException, Elasticsearch, NotFoundError

from slurp.config import Config
from slurp.elastic import state_documents
from slurp.elastic.client import Elastic, describe
from slurp.elastic.days import SECONDS_PER_DAY, Clocks, day_of_index, managed_day_indices
from slurp.elastic.features import Features
from slurp.elastic.templates import MANAGED_META, Change, put_if_changed

log = logging.getLogger(__name__)

# The kind of the document about the retention that was last enforced.
_STATE = "retention"
# Seconds between two checks, and until a check that failed is repeated.
CHECK_INTERVAL = 3600.0
_RETRY_INTERVAL = 60.0
# Seconds between the announcement of the indices that a shorter retention deletes and the first deletion, so
# that a mistake can be corrected.
ANNOUNCEMENT_PERIOD = 600.0


@dataclass(frozen=True)
class RetentionOptions:
    """The retention of the daily indices of one `--index`."""

    index: str
    days: int | None
    """None keeps all days."""
    updates_policy: bool = False
    """Whether the worker changes the lifecycle policy: False without ILM and with --no-setup."""

    @classmethod
    def of(cls, config: Config, features: Features) -> RetentionOptions:
        """Return the retention that `config` sets on a cluster with these features."""
        return cls(config.index, config.retention_days, features.lifecycle and not config.no_setup)


class Retention:
    """Periodic deletion of days past retention.

    The first check after a shorter `--retention` announces the deletions; they follow after
    ANNOUNCEMENT_PERIOD.
    """

    def __init__(
        self,
        elastic: Elastic,
        options: RetentionOptions,
        clocks: Clocks | None = None,
        *,
        stop: threading.Event | None = None,
        heartbeat: Callable[[], None] = lambda: None,
    ) -> None:
        """Nothing is deleted while `clocks.earliest` returns None, or after `stop` is set.

        `heartbeat` is called before each deletion, since many deletions on a slow cluster take long.
        """
        self._elastic = elastic
        self._index = options.index
        self._days = options.days
        self._updates_policy = options.updates_policy
        self._clocks = clocks or Clocks()
        self._stop = stop or threading.Event()
        self._heartbeat = heartbeat
        self._due = float("-inf")
        self._may_delete = False

    def step(self) -> bool:
        """Check the retention if a check is due; return whether it was.

        Raises the exceptions of the client.
        """
        now = self._clocks.monotonic()
        if now < self._due or (self._days is not None and self._clocks.earliest() is None):
            return False
        # Holds if the check fails.
        self._due = now + _RETRY_INTERVAL
        client = self._elastic.client.options(request_timeout=30)
        if not self._may_delete and self._announce(client):
            self._may_delete = True
            self._due = now + ANNOUNCEMENT_PERIOD
            return True
        self._may_delete = True
        self._delete(client)
        self._due = now + CHECK_INTERVAL
        return True

    def expired(self, client: Elasticsearch) -> list[str]:
        """Return the names of the daily indices that are past retention, the oldest first."""
        now = self._clocks.earliest()
        if self._days is None or now is None:
            return []
        oldest = int(now) // SECONDS_PER_DAY - self._days
        days = {name: day_of_index(self._index, name) for name in managed_day_indices(client, self._index)}
        return sorted(name for name, day in days.items() if day is not None and day < oldest)

    def _announce(self, client: Elasticsearch) -> bool:
        """Log which indices a shorter retention will delete; return whether there is anything to announce."""
        last = enforced_retention(client, self._index)
        if last is None or not _is_shorter(self._days, last["retention_days"]):
            return False
        names = self.expired(client)
        if not names and not self._updates_policy:
            return False
        log.warning(
            "retention is %d days now, it was %s: in %.0f minutes %d index(es) will be deleted: %s",
            self._days,
            last["retention_days"] or "forever",
            ANNOUNCEMENT_PERIOD / 60,
            len(names),
            ", ".join(names) or "none yet",
        )
        return True

    def _delete(self, client: Elasticsearch) -> None:
        for name in self.expired(client):
            if self._stop.is_set():
                return  # a slow cluster must not delay the shutdown; the next start deletes the rest
            self._heartbeat()
            try:
                # By name: many clusters do not allow deletion by wildcard.
                client.indices.delete(index=name)
            except NotFoundError:
                continue
            except AuthorizationException as error:
                log.warning(
                    "%s is past retention, but the privilege to delete it is missing: %s",
                    name,
                    describe(error),
                )
                break
            log.info("deleted %s, past the retention of %s days", name, self._days)
        last = enforced_retention(client, self._index)
        # Saved only after the announcement period: a restart within the period must not shorten it.
        if last is None or last["retention_days"] != self._days:
            if self._updates_policy and last is not None:
                self._put_policy(client)
            state_documents.save(client, _STATE, self._index, {"retention_days": self._days})

    def _put_policy(self, client: Elasticsearch) -> None:
        try:
            put_policy(client, self._index, self._days)
        except AuthorizationException as error:
            log.warning("the lifecycle policy is not changed: %s", describe(error))


def put_policy_unless_shorter(client: Elasticsearch, index: str, retention_days: int | None) -> Change:
    """Put the policy; with a shorter retention put the last one, until `Retention` has announced the
    change."""
    last = enforced_retention(client, index)
    if (
        last is None
        or not _is_shorter(retention_days, last["retention_days"])
        or find_policy(client, index) is None
    ):
        return put_policy(client, index, retention_days)
    last_days = last["retention_days"]
    log.warning(
        "lifecycle policy %r keeps a retention of %s until a worker has announced and enforced that of %d "
        "days; with --no-setup run --setup-only once more after that",
        index,
        "forever" if last_days is None else f"{last_days} days",
        retention_days,
    )
    # Put nevertheless, to update the version in its `_meta`.
    return put_policy(client, index, last_days)


def put_policy(client: Elasticsearch, index: str, retention_days: int | None) -> Change:
    """Put the lifecycle policy for a retention, unless it exists in this form."""
    # With the default values that Elasticsearch returns, so that an equal policy is recognized.
    phases: dict[str, Any] = {"hot": {"min_age": "0ms", "actions": {}}}
    if retention_days is not None:
        # An index is created up to an hour before its day begins, and its day is kept in full.
        age = f"{(retention_days + 1) * 24 + 1}h"
        phases["delete"] = {
            "min_age": age,
            "actions": {"delete": {"delete_searchable_snapshot": True}},
        }
    policy = {"phases": phases, "_meta": MANAGED_META}
    return put_if_changed(
        f"lifecycle policy {index!r}",
        find_policy(client, index),
        policy,
        lambda: client.ilm.put_lifecycle(name=index, policy=policy),
    )


def find_policy(client: Elasticsearch, name: str) -> dict[str, Any] | None:
    """Return the body of a lifecycle policy, None if it does not exist."""
    try:
        found: dict[str, Any] = client.ilm.get_lifecycle(name=name).body
    except NotFoundError:
        return None
    return found[name]["policy"] if name in found else None


def enforced_retention(client: Elasticsearch, index: str) -> dict[str, Any] | None:
    """Return the document about the retention that was last enforced, None before the first time."""
    found = state_documents.find(client, _STATE, index)
    return None if found is None else dict(found["_source"])


def _is_shorter(days: int | None, last_days: int | None) -> bool:
    return days is not None and (last_days is None or days < last_days)
