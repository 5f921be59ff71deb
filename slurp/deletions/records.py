"""Redact earlier versions of records, in their index and under their `_id`.

The `_id` stays, so an event that is read again is a duplicate and its content does not come back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from slurp.deletions.tombstones import SOURCE_FIELDS, tombstone
from slurp.deletions.versions import (
    Versions,
    overwrite,
    text_in,
    utc_now,
)
from slurp.elastic.bulk import chunks
from slurp.elastic.error_classes import Item
from slurp.events.removals import Removal, latest

Json = dict[str, Any]

# Deletions and updates, also those whose own content was removed.
# The tombstones of deleted accounts have no `uri`, and say nothing about a record any more.
IS_REMOVAL: Json = {
    "bool": {"filter": [{"terms": {"commit.operation": ["delete", "update"]}}, {"exists": {"field": "uri"}}]}
}


@dataclass
class Redaction:
    """The result for one set of removals.

    Attributes:
        redacted: number of versions that were replaced, by reason.
        failed: records of which a version still has its content, with the error of the last attempt.
    """

    redacted: dict[str, int] = field(default_factory=dict)
    failed: dict[str, Item] = field(default_factory=dict)

    def add(self, other: Redaction) -> None:
        """Add another result."""
        for reason, count in other.redacted.items():
            self.redacted[reason] = self.redacted.get(reason, 0) + count
        self.failed |= other.failed


def redact(versions: Versions, removals: Mapping[str, Removal], day: str | None = None) -> Redaction:
    """Replace all versions of these records, by `uri`, that are earlier than their removal.

    Finds versions that are refreshed only. A version that another program changes meanwhile is in `failed`,
    and so is one that Elasticsearch cannot write; a later call finds them again. Raises the exceptions of the
    client.
    """
    result = Redaction()
    found: list[Json] = []
    for hits in earlier_versions(versions, removals, day):
        found += hits
        if len(found) >= versions.page:
            _overwrite(versions, removals, found, result)
            found = []
    _overwrite(versions, removals, found, result)
    versions.derived.remove_records([uri for uri, one in removals.items() if one.reason == "deleted"])
    return result


def _overwrite(
    versions: Versions, removals: Mapping[str, Removal], hits: Sequence[Json], result: Redaction
) -> None:
    now = utc_now()
    uris = [str(hit["_source"]["uri"]) for hit in hits]
    actions = [
        overwrite(hit, tombstone(hit["_source"], removals[uri].reason, now))
        for hit, uri in zip(hits, uris, strict=True)
    ]
    for uri, error in zip(uris, versions.write(actions), strict=True):
        if error is None:
            reason = removals[uri].reason
            result.redacted[reason] = result.redacted.get(reason, 0) + 1
        else:
            result.failed[uri] = error


def earlier_versions(
    versions: Versions, removals: Mapping[str, Removal], day: str | None = None
) -> Iterator[list[Json]]:
    """Yield pages of the versions with content that are earlier than the removal of their record."""
    # Sorted, so that each query reads one part of the terms of an index: that halves the time to find them.
    queries = [_with_content(uris) for uris in chunks(sorted(removals))]
    for _, hits in versions.search_each(queries, SOURCE_FIELDS, day):
        # An ingest pipeline of the user may have changed the source.
        known = [hit for hit in hits if text_in(hit, "uri") in removals]
        earlier = [hit for hit in known if "" < _rev(hit) < removals[hit["_source"]["uri"]].rev]
        if earlier:
            yield earlier


def stored_removals(versions: Versions, uris: Iterable[str]) -> dict[str, Removal]:
    """Return the stored deletion or update with the highest rev of each of these records, if there is one."""
    queries = [
        {"bool": {"filter": [{"terms": {"uri": chunk}}, IS_REMOVAL]}} for chunk in chunks(sorted(uris))
    ]
    pages = removal_pages(versions, queries)
    return latest(removal for _, page in pages for removal in page.values())


def removal_pages(versions: Versions, queries: Iterable[Json]) -> Iterator[tuple[int, dict[str, Removal]]]:
    """Yield the stored deletions and updates that queries find, page by page: the number of hits, and the
    removal with the highest rev of each record."""
    for _, hits in versions.search_each(queries, ["uri", "commit.rev", "commit.operation"]):
        yield len(hits), latest(_removals_in(hits))


def _removals_in(hits: Iterable[Json]) -> Iterator[Removal]:
    for hit in hits:
        uri, rev = text_in(hit, "uri"), _rev(hit)
        if uri and rev:
            reason = "deleted" if hit["_source"]["commit"].get("operation") == "delete" else "updated"
            yield Removal(uri, rev, reason)


def _with_content(uris: Sequence[str]) -> Json:
    return {
        "bool": {
            "filter": [{"terms": {"uri": uris}}],
            "must_not": [
                {"exists": {"field": "redacted.at"}},
                # A deletion has none, unless it is in quarantine with its original text.
                {
                    "bool": {
                        "filter": [{"term": {"commit.operation": "delete"}}],
                        "must_not": [{"exists": {"field": "quarantine.error"}}],
                    }
                },
            ],
        }
    }


def _rev(hit: Json) -> str:
    """Return the rev of a version; '' if an ingest pipeline of the user has removed or changed it."""
    commit = hit["_source"].get("commit")
    rev = commit.get("rev") if isinstance(commit, dict) else None
    return rev if isinstance(rev, str) else ""
