"""Nightly removal of deleted documents from the segments of past days.

A document that was overwritten or deleted stays on disk until its segment is merged, and the large segments
of a past day are hardly ever merged again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from elasticsearch import AuthorizationException, Elasticsearch, NotFoundError

from slurp.elastic.client import Elastic
from slurp.elastic.days import SECONDS_PER_DAY, Clocks, day_of_index
from slurp.elastic.templates import EXPUNGE_DELETES_ALLOWED, is_managed

log = logging.getLogger(__name__)

# The hour of the day (UTC) in which merges are started.
_NIGHT = range(3 * 3600, 4 * 3600)
# Seconds between two checks within that hour, and while a merge runs.
CHECK_INTERVAL = 60.0
# Days before tomorrow that are left alone: today and yesterday are still written, and merge by themselves.
_RECENT = 2
_TIMEOUT = 30.0


@dataclass(frozen=True)
class _Merge:
    """A merge that Elasticsearch carries out."""

    name: str
    task: str
    deleted: int


class Expunge:
    """Merges the segments with deleted documents of one past daily index after the other, once a night.

    An index is chosen if more than EXPUNGE_DELETES_ALLOWED percent of its documents are deleted, the one with
    the largest share first.
    """

    def __init__(self, elastic: Elastic, index: str, clocks: Clocks | None = None) -> None:
        self._elastic = elastic
        self._index = index
        self._clocks = clocks or Clocks()
        self._due = float("-inf")
        self._running: _Merge | None = None
        # The day in which the current night is, and the indices that had their turn in it.
        self._day = -1
        self._tried: set[str] = set()
        self._is_finished = False

    def step(self) -> bool:
        """Start a merge, or check the one that runs, if that is due; return whether it was.

        Does not wait for a merge: that of a large index takes minutes. Raises the exceptions of the client.
        """
        day, second = divmod(int(self._clocks.now()), SECONDS_PER_DAY)
        if day != self._day:
            self._day, self._tried, self._is_finished = day, set(), False
        is_time = second in _NIGHT and not self._is_finished
        if not (is_time or self._running) or self._clocks.monotonic() < self._due:
            return False
        self._due = self._clocks.monotonic() + CHECK_INTERVAL
        client = self._elastic.client.options(request_timeout=_TIMEOUT)
        if self._running is not None and not self._check(client, self._running):
            return True
        self._running = None
        if is_time:
            self._start_next(client, day)
        return True

    def _start_next(self, client: Elasticsearch, today: int) -> None:
        documents = self._documents(client)
        shares = {
            name: deleted / (count + deleted)
            for name, (count, deleted) in documents.items()
            if deleted and name not in self._tried and self._is_past(name, today)
        }
        name = max(shares, key=shares.__getitem__, default=None)
        if name is None or shares[name] * 100 <= EXPUNGE_DELETES_ALLOWED:
            self._is_finished = True
            return
        # First, so that an index that cannot be merged does not keep the others from their turn.
        self._tried.add(name)
        if not _is_managed(client, name):
            return
        _allow_expunge(client, name)
        response = client.indices.forcemerge(index=name, only_expunge_deletes=True, wait_for_completion=False)
        count, deleted = documents[name]
        self._running = _Merge(name, response["task"], deleted)
        log.info(
            "merging %s, as %s of %s documents were overwritten or deleted and are still on disk",
            name,
            f"{deleted:,}",
            f"{count + deleted:,}",
        )

    def _check(self, client: Elasticsearch, merge: _Merge) -> bool:
        """Return whether a merge is over, and log its result."""
        try:
            # Not by `tasks.get`, which warns that its API may change.
            found: Any = client.perform_request(
                "GET",
                f"/_tasks/{merge.task}",
                headers={"accept": "application/json"},
                endpoint_id="tasks.get",
            )
        except NotFoundError:
            return True  # its node was restarted
        if not found["completed"]:
            return False
        if problem := found.get("error") or found.get("response", {}).get("_shards", {}).get("failures"):
            log.warning("%s could not be merged; trying again in the next night: %.300s", merge.name, problem)
        else:
            _, left = self._documents(client).get(merge.name, (0, 0))
            log.info(
                "merged %s: %s deleted documents were removed from disk",
                merge.name,
                f"{merge.deleted - left:,}",
            )
        return True

    def _documents(self, client: Elasticsearch) -> dict[str, tuple[int, int]]:
        """Return the number of documents and of deleted documents in all copies of each open index."""
        stats = client.indices.stats(
            index=f"{self._index}-*", metric="docs", filter_path="indices.*.total.docs"
        ).body.get("indices", {})
        documents = {name: found["total"].get("docs") for name, found in stats.items()}
        return {name: (docs["count"], docs["deleted"]) for name, docs in documents.items() if docs}

    def _is_past(self, name: str, today: int) -> bool:
        day = day_of_index(self._index, name)
        return day is not None and day <= today - _RECENT


def _is_managed(client: Elasticsearch, name: str) -> bool:
    found = client.indices.get_mapping(index=name, filter_path="*.mappings._meta").body
    return is_managed(found.get(name, {}).get("mappings", {}).get("_meta"))


def _allow_expunge(client: Elasticsearch, name: str) -> None:
    """Set the share of deleted documents above which a segment is merged, in an index that has none.

    An index of an earlier version has none. Without the privilege it keeps the default of Elasticsearch, 10%.
    """
    settings = client.indices.get_settings(index=name)[name]["settings"]["index"]
    if "expunge_deletes_allowed" in settings.get("merge", {}).get("policy", {}):
        return
    setting = {"index.merge.policy.expunge_deletes_allowed": EXPUNGE_DELETES_ALLOWED}
    try:
        client.indices.put_settings(index=name, settings=setting)
    except AuthorizationException:
        log.debug("%s keeps the default share: the privilege to change its settings is missing", name)
