"""Compute the rows of one hour or day from the events, and keep deleted content out of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import quote

from elasticsearch import NotFoundError

from slurp.actors.appview import Post
from slurp.actors.names import Name
from slurp.deletions.account_states import AccountStates
from slurp.deletions.records import stored_removals
from slurp.deletions.versions import Versions, text_in
from slurp.documents.display import shorten
from slurp.documents.existing import EXISTING
from slurp.documents.urls import page_url, profile_url
from slurp.elastic.client import Elastic
from slurp.elastic.response_checks import UnexpectedResponse
from slurp.elastic.trend_rows import TrendRows
from slurp.events.frames import account_of
from slurp.events.times import day_of
from slurp.trends import measures
from slurp.trends.intervals import DAY, Interval
from slurp.trends.measures import MEASURES, Count, Kind

Json = dict[str, Any]

# Characters of a post in a row.
_MAX_TEXT = 300
# Of a post that is known but has pictures or a video only.
_NO_TEXT = "(no text)"
# Seconds that Elasticsearch may take for the list of a whole day.
_TIMEOUT = 120.0


class Names(Protocol):
    """Where names, and posts that are not stored, come from."""

    def names(self, dids: Iterable[str]) -> Mapping[str, Name]:
        """Return the names that are known or can be looked up now."""

    def posts(self, uris: Iterable[str]) -> Mapping[str, Post]:
        """Return the posts that can be looked up now."""


@dataclass(frozen=True)
class _Shown:
    """What rows may show: neither removed posts, nor deleted accounts; those in `hidden` are marked."""

    removed: frozenset[str]
    deleted: frozenset[str]
    hidden: frozenset[str]

    def has(self, row: Mapping[str, Any]) -> bool:
        return row.get("uri") not in self.removed and row.get("did") not in self.deleted


class Trends:
    """Computes the rows of one `--index`. All methods raise the exceptions of the client."""

    def __init__(
        self,
        elastic: Elastic,
        index: str,
        versions: Versions,
        names: Names,
        heartbeat: Callable[[], None] = lambda: None,
    ) -> None:
        self.rows = TrendRows(elastic, index)
        self._elastic = elastic
        self._index = index
        self._versions = versions
        self._states = AccountStates(elastic, index)
        self._names = names
        self._heartbeat = heartbeat

    def compute(self, interval: Interval, generation: int) -> bool:
        """Compute and store the rows of an hour or day; return False if its events are not there any more.

        Content that was deleted before, or is deleted meanwhile, is in no row afterwards. Deletions that are
        applied later remove the rows.
        """
        try:
            rows = self._named(self._lists(interval, self.day_index(interval.day)))
        except NotFoundError:
            return False
        shown = self._shown(rows)
        computed_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        common = {
            "@timestamp": interval.start,
            "middle": interval.middle,
            "interval": interval.name,
            "computed_at": computed_at,
        }
        kept = [
            {**common, **row, **({"hidden": True} if row.get("did") in shown.hidden else {})}
            for row in rows
            if shown.has(row)
        ]
        self.rows.write(kept, generation)
        self.rows.remove_older(interval.name, interval.start, generation)
        self.rows.refresh()
        self._correct(kept)
        return True

    def day_index(self, day: int) -> str:
        """Return the name of the index of a day."""
        return f"{self._index}-{day_of(day)}"

    def _correct(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Remove or hide what was deleted between reading and writing.

        A deletion that is applied later finds the rows, as they are refreshed.
        """
        self._versions.refresh()
        shown = self._shown(rows)
        if shown.removed:
            self.rows.remove_records(shown.removed)
        if shown.deleted:
            self.rows.remove_accounts(shown.deleted)
        if shown.hidden:
            self.rows.hide(shown.hidden, hidden=True)

    def _shown(self, rows: Iterable[Mapping[str, Any]]) -> _Shown:
        uris = {row["uri"] for row in rows if "uri" in row}
        dids = {row["did"] for row in rows if "did" in row}
        removals = stored_removals(self._versions, uris)
        states = self._states.get(dids)
        return _Shown(
            removed=frozenset(uri for uri, one in removals.items() if one.reason == "deleted"),
            deleted=frozenset(did for did, one in states.items() if one.times.deleted_until_us),
            hidden=frozenset(did for did, one in states.items() if one.times.hidden_until_us),
        )

    # Counting

    def _lists(self, interval: Interval, day: str) -> list[Json]:
        """Return the rows of all measures, without names and texts."""
        rows = []
        for measure in MEASURES:
            aggregation = measure.aggregation(is_long=interval.name == DAY)
            response = self._search(interval, day, measure.conditions, aggregation)
            counts = measures.counts_in(measure, response)
            rows += [
                {**_row(measure.name, rank, count), **_subject(measure.kind, measure.name, count.key)}
                for rank, count in enumerate(counts, 1)
            ]
        totals = measures.totals_in(self._search(interval, day, (), measures.totals_aggregation()))
        rows += [_row(measures.TOTALS, rank, count) for rank, count in enumerate(totals, 1)]
        return rows + self._collections(interval, day)

    def _collections(self, interval: Interval, day: str) -> list[Json]:
        response = self._search(interval, day, (), measures.collections_aggregation())
        rows = []
        for rank, count in enumerate(measures.collections_in(response), 1):
            collection, operation = count.key.rsplit(" ", 1)
            names = {"collection": collection, "operation": operation}
            rows.append({**_row(measures.COLLECTIONS, rank, count), **names})
        if apps := measures.apps_in(response):
            response = self._search(interval, day, (), measures.apps_aggregation(apps))
            for rank, count in enumerate(measures.apps_counts_in(response), 1):
                rows.append({**_row(measures.APPS, rank, count), "url": f"https://{count.key}"})
        return rows

    def _search(
        self, interval: Interval, day: str, conditions: Sequence[Mapping[str, Any]], aggregations: Json
    ) -> Mapping[str, Any]:
        self._heartbeat()
        response = self._elastic.client.options(request_timeout=_TIMEOUT).search(
            index=day,
            query=measures.query(interval.start, interval.end, *conditions),
            aggs=aggregations,
            size=0,
            track_total_hits=False,
            allow_partial_search_results=False,
        )
        if response["timed_out"] or response["_shards"]["failed"]:
            raise UnexpectedResponse("a search for trends did not reach all shards")
        return response.body  # type: ignore[no-any-return]

    # Names and texts

    def _named(self, rows: list[Json]) -> list[Json]:
        """Add the names of accounts and the texts of posts, as far as they are known."""
        texts = self._texts({row["uri"] for row in rows if "uri" in row})
        names = self._names.names({row["did"] for row in rows if "did" in row})
        for row in rows:
            if (did := row.get("did")) is not None:
                name = names.get(did, Name())
                row.update(_known(handle=name.handle, display_name=name.display_name))
                row["author"] = name.text or did
            if (post := texts.get(row.get("uri", ""))) is not None:
                text = shorten(" ".join(post.text.split()), _MAX_TEXT) or _NO_TEXT
                row.update(_known(text=text, labels=list(post.labels)))
        return rows

    def _texts(self, uris: set[str]) -> dict[str, Post]:
        """Return the posts, stored ones first."""
        query = {
            "bool": {
                "filter": [{"terms": {"uri": sorted(uris)}}, EXISTING],
                "must_not": [{"term": {"commit.operation": "delete"}}],
            }
        }
        newest: dict[str, tuple[str, Post]] = {}
        for hits in self._versions.search(query, ["uri", "text", "labels", "commit.rev"]) if uris else ():
            for hit in hits:
                uri, commit = text_in(hit, "uri"), hit["_source"].get("commit")
                rev = str(commit.get("rev")) if isinstance(commit, dict) else ""
                if uri in uris and rev > newest.get(uri, ("",))[0]:
                    newest[uri] = (
                        rev,
                        Post(uri, text_in(hit, "text"), _texts_in(hit["_source"].get("labels"))),
                    )
        found = {uri: post for uri, (_, post) in newest.items()}
        return found | dict(self._names.posts(uris - found.keys()))


def _row(measure: str, rank: int, count: Count) -> Json:
    row = {"measure": measure, "key": count.key, "rank": rank, "count": count.count}
    return row if count.people is None else row | {"people": count.people}


def _subject(kind: Kind, measure: str, key: str) -> Json:
    """Return the fields that say what the key of a row is."""
    if kind is Kind.POST:
        return {"uri": key, "did": account_of(key), **_known(url=page_url(key))}
    if kind is Kind.PERSON:
        return {"did": key, "url": profile_url(key)}
    urls = {
        "links": key,
        "sites": f"https://{key}",
        "tags": f"https://bsky.app/hashtag/{quote(key, safe='')}",
    }
    return _known(url=urls.get(measure))


def _known(**values: Any) -> Json:
    return {name: value for name, value in values.items() if value}


def _texts_in(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(one for one in values if isinstance(one, str))
