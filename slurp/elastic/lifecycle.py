"""Days past retention go: by our own hand, by name, and by a policy where the cluster has them.

The policy counts from the creation of an index and acts while no worker runs; we count from the day in
its name, which is right also for a day that was filled later. So we look whether or not there is one.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from elasticsearch import AuthorizationException, Elasticsearch, NotFoundError

from slurp.elastic.client import Elastic, describe
from slurp.elastic.features import Features
from slurp.elastic.templates import MARK, STATE_INDEX, Change, is_ours, put_part

log = logging.getLogger(__name__)

_DAY = 86_400
EVERY = 3600.0
# Between the list of what a shorter retention takes and the first deletion: time to think again.
THINK_AGAIN = 600.0


class Retention:
    """Deletes days past retention. `step` is one look; the first one may only announce."""

    def __init__(
        self,
        elastic: Elastic,
        index: str,
        retention_days: int | None,
        features: Features,
        clock: Callable[[], float | None] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        no_setup: bool = False,
        stop: threading.Event | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """`clock` is the time (Unix seconds) that it is at least: nothing is deleted before that is known.

        `no_setup` leaves the policy to whoever does the set-up; after `stop` nothing more is deleted.
        `beat` is called before each deletion: there may be many, and a slow cluster is not a hung thread.
        """
        self._beat = beat
        self._stop = stop or threading.Event()
        self._elastic = elastic
        self._index = index
        self._retention = retention_days
        self._has_policy = features.lifecycle and not no_setup
        self._clock = clock
        # For waiting: a clock that is set must not cut short the ten minutes, nor put off a look for hours.
        self._monotonic = monotonic
        self._due = -1e18
        self._settled = False

    def step(self) -> bool:
        """Cheap until the hour is over; whether it looked. Raises what the client raises for a cluster in
        trouble."""
        now = self._monotonic()
        if now < self._due or (self._retention is not None and self._clock() is None):
            return False
        # Trouble: a minute later again.
        self._due = now + 60
        client = self._elastic.client.options(request_timeout=30)
        if not self._settled and self._announces(client):
            self._settled = True
            self._due = now + THINK_AGAIN
            return True
        self._settled = True
        self._delete(client)
        self._due = now + EVERY
        return True

    def expired(self, client: Elasticsearch) -> list[str]:
        """Names of our days that are past retention, the oldest first."""
        now = self._clock()
        if self._retention is None or now is None:
            return []
        oldest = int(now) // _DAY - self._retention
        ages = {name: day_in(self._index, name) for name in our_days(client, self._index)}
        return sorted(name for name, day in ages.items() if day is not None and day < oldest)

    def _announces(self, client: Elasticsearch) -> bool:
        before = remembered(client, self._index)
        if before is None or not _shorter(self._retention, before["retention_days"]):
            return False
        going = self.expired(client)
        if not going and not self._has_policy:
            return False
        log.warning(
            "retention is %d days now, it was %s: in %.0f minutes %d index(es) will be deleted: %s",
            self._retention,
            before["retention_days"] or "forever",
            THINK_AGAIN / 60,
            len(going),
            ", ".join(going) or "none yet",
        )
        return True

    def _delete(self, client: Elasticsearch) -> None:
        for name in self.expired(client):
            if self._stop.is_set():
                return  # a slow cluster must not delay the end; the next start goes on
            self._beat()
            try:
                # By name: many clusters refuse to delete by wildcard.
                client.indices.delete(index=name)
            except NotFoundError:
                continue
            except AuthorizationException as error:
                log.warning("%s is past retention and we may not delete it: %s", name, describe(error))
                break
            log.info("deleted %s, past the retention of %s days", name, self._retention)
        before = remembered(client, self._index)
        # Only now: a restart within the ten minutes must not make them shorter.
        if before is None or before["retention_days"] != self._retention:
            if self._has_policy and before is not None:
                self._put_policy(client)
            remember(client, self._index, self._retention)

    def _put_policy(self, client: Elasticsearch) -> None:
        try:
            put_policy(client, self._index, self._retention)
        except AuthorizationException as error:
            log.warning("the lifecycle policy stays as it is: %s", describe(error))


def day_in(index: str, name: str) -> int | None:
    """The day since 1970-01-01 that `<index>-YYYY.MM.DD` names; None for any other name."""
    found = re.fullmatch(rf"{re.escape(index)}-([0-9]{{4}})\.([0-9]{{2}})\.([0-9]{{2}})", name)
    if found is None:
        return None
    try:
        year, month, day = map(int, found.groups())
        moment = datetime(year, month, day, tzinfo=UTC)
    except ValueError:
        return None
    return int(moment.timestamp()) // _DAY


def our_days(client: Elasticsearch, index: str) -> dict[str, Any]:
    """The day indices that are ours by name *and* mark, with the `_meta` of their mappings."""
    found = client.indices.get_mapping(index=f"{index}-*", allow_no_indices=True)
    metas = {name: body["mappings"].get("_meta") for name, body in found.items()}
    return {name: meta for name, meta in metas.items() if day_in(index, name) is not None and is_ours(meta)}


def put_policy_unless_shorter(client: Elasticsearch, index: str, retention_days: int | None) -> Change:
    """Put the policy; one that would take days sooner waits until `Retention` has announced it."""
    before = remembered(client, index)
    if (
        before is None
        or not _shorter(retention_days, before["retention_days"])
        or find_policy(client, index) is None
    ):
        return put_policy(client, index, retention_days)
    kept = before["retention_days"]
    log.warning(
        "lifecycle policy %r keeps a retention of %s until a worker has announced and enforced that of %d "
        "days; with --no-setup run --setup-only once more after that",
        index,
        "forever" if kept is None else f"{kept} days",
        retention_days,
    )
    # Put again all the same: its mark is of this version then.
    return put_policy(client, index, kept)


def put_policy(client: Elasticsearch, index: str, retention_days: int | None) -> Change:
    # With its defaults, as Elasticsearch gives it back: equal ones are not put again.
    phases: dict[str, Any] = {"hot": {"min_age": "0ms", "actions": {}}}
    if retention_days is not None:
        # An index is made up to an hour before its day, and the day itself is kept as well.
        age = f"{(retention_days + 1) * 24 + 1}h"
        phases["delete"] = {
            "min_age": age,
            "actions": {"delete": {"delete_searchable_snapshot": True}},
        }
    policy = {"phases": phases, "_meta": MARK}
    return put_part(
        f"lifecycle policy {index!r}",
        find_policy(client, index),
        policy,
        lambda: client.ilm.put_lifecycle(name=index, policy=policy),
    )


def find_policy(client: Elasticsearch, name: str) -> dict[str, Any] | None:
    """The body of a lifecycle policy; None where there is none of that name."""
    try:
        found: dict[str, Any] = client.ilm.get_lifecycle(name=name).body
    except NotFoundError:
        return None
    return found[name]["policy"] if name in found else None


def remembered(client: Elasticsearch, index: str) -> dict[str, Any] | None:
    """The retention that was last enforced; None before the first time."""
    try:
        found: dict[str, Any] = client.get(index=STATE_INDEX, id=f"retention:{index}")["_source"]
    except NotFoundError:
        return None
    return found


def remember(client: Elasticsearch, index: str, retention_days: int | None) -> None:
    document = {
        "type": "retention",
        "index": index,
        "retention_days": retention_days,
        "updated_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    client.index(index=STATE_INDEX, id=f"retention:{index}", document=document)


def _shorter(now: int | None, before: int | None) -> bool:
    return now is not None and (before is None or now < before)
