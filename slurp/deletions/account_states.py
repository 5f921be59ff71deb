"""The stored state of accounts that are not active: one document each in the state index.

A state holds the latest times at which the account was active, not active and deleted, so two workers may add
to it in any order. It stays while the account is not active, whatever happens to the day of its event.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import orjson

from slurp.deletions.due import Due
from slurp.deletions.versions import utc_now
from slurp.elastic import state_documents
from slurp.elastic.bulk import CHUNK, Action, chunks, send
from slurp.elastic.client import Elastic
from slurp.elastic.error_classes import ItemClass, classify
from slurp.elastic.response_checks import UnexpectedResponse
from slurp.elastic.templates import STATE_INDEX
from slurp.events.removals import NEVER, AccountTimes
from slurp.events.times import utc

Json = dict[str, Any]

_TYPE = "account"


@dataclass(frozen=True)
class AccountState:
    """The stored state of one account.

    Attributes:
        times: the latest times of its changes.
        pending_since: since when its documents may not correspond to `times`; None if they do.
        has_history: whether `times` include those of all stored events.
        found_at: when a server received its deletion; None without a deletion, and without history.
        due_at: the time of the stream at which its documents are to be redacted; None if they are, and
            without `found_at`.
        redacted_us: the time of the deletion that was carried out; 0 for none.
        version: sequence number and primary term of the document; None before it is stored.
    """

    did: str
    times: AccountTimes = NEVER
    pending_since: datetime | None = None
    has_history: bool = False
    found_at: datetime | None = None
    due_at: datetime | None = None
    redacted_us: int = 0
    version: tuple[int, int] | None = None

    @property
    def is_redacted(self) -> bool:
        """Whether its deletion was carried out, so that late documents are redacted immediately."""
        return self.times.deleted_until_us > 0 and self.redacted_us == self.times.deleted_us

    @property
    def is_over(self) -> bool:
        """Whether the account is active and none of its documents is hidden."""
        return self.pending_since is None and not self.times.hidden_until_us

    def advanced(self, times: AccountTimes, delay: timedelta, *, has_history: bool) -> AccountState:
        """Return the state with the times of more events, to be applied; `delay` is that of a deletion."""
        before, times = self.times, self.times.merge(times)
        state = replace(
            self, times=times, has_history=has_history, pending_since=self.pending_since or utc_now()
        )
        if not times.deleted_until_us:
            return replace(state, found_at=None, due_at=None)
        # Another event about the same deletion changes nothing.
        is_known = (
            self.found_at is not None
            and times.active_us < before.deleted_us
            and utc(times.active_us) < self.found_at
            and (times.deleted_us == before.deleted_us or not self.is_redacted)
        )
        if is_known or not has_history:
            return state
        found_at = utc(times.received_us)
        return replace(state, found_at=found_at, due_at=found_at + delay)


class AccountStates:
    """The states of the accounts of one `--index`. All methods raise the exceptions of the client."""

    def __init__(self, elastic: Elastic, index: str) -> None:
        self._elastic = elastic
        self._index = index

    def get(self, dids: Iterable[str]) -> dict[str, AccountState]:
        """Return the stored states of these accounts."""
        found: dict[str, AccountState] = {}
        for ids in chunks([self._id(did) for did in dids]):
            response = self._elastic.client.mget(index=STATE_INDEX, ids=ids)
            for doc in response["docs"]:
                if "error" in doc:
                    raise UnexpectedResponse(f"the state of an account cannot be read: {doc['error']}")
                if doc["found"]:
                    state = _state(doc)
                    found[state.did] = state
        return found

    def put(self, states: Sequence[AccountState]) -> set[str]:
        """Store states, and delete those that are over; return the accounts that were not written because
        another worker has changed their state."""
        if not states:
            return set()
        conflicts = set()
        actions = [self._action(state) for state in states]
        for state, item in zip(states, send(self._elastic.client, actions), strict=True):
            if classify(item) is ItemClass.DUPLICATE or item.status == 404:
                conflicts.add(state.did)
            elif classify(item) is not ItemClass.INDEXED:
                raise UnexpectedResponse(f"the state of an account cannot be written: {item}")
        self._elastic.client.indices.refresh(index=STATE_INDEX)
        return conflicts

    def pending(self, limit: int) -> list[AccountState]:
        """Return some of the states that are not applied, those that were written first."""
        return self._search({"exists": {"field": "pending_since"}}, "updated_at", limit)

    def due(self, due: Due, limit: int, held: Iterable[tuple[str, str]]) -> list[AccountState]:
        """Return some of the deleted accounts that are to be redacted, unless a server received their
        deletion in one of the periods `held`."""
        complete = [
            {"range": {"found_at": {"gte": due.since.isoformat()}}},
            {"range": {"due_at": {"lte": due.until.isoformat()}}},
        ]
        query = {
            "bool": {
                "should": [
                    {"bool": {"filter": complete}},
                    {"range": {"due_at": {"lte": due.with_gaps.isoformat()}}},
                ],
                "minimum_should_match": 1,
                "must_not": [{"range": {"found_at": {"gte": start, "lte": end}}} for start, end in held],
            }
        }
        return self._search(query, "updated_at", limit)

    def newest(self, limit: int) -> list[AccountState]:
        """Return the accounts that became inactive last."""
        self._elastic.client.indices.refresh(index=STATE_INDEX)
        found: list[AccountState] = []
        after: list[Any] | None = None
        while len(found) < limit:
            page = self._elastic.client.search(
                index=STATE_INDEX,
                query=self._of_index({"range": {"inactive_us": {"gt": 0}}}),
                sort=[{"inactive_us": "desc"}, {"did": "asc"}],
                search_after=after,
                size=min(limit - len(found), 10_000),
            )["hits"]["hits"]
            found += map(_state, page)
            if not page:
                break
            after = page[-1]["sort"]
        return found

    def delete_before(self, time_us: int) -> None:
        """Delete some states that are applied, of accounts that were last seen inactive before a time."""
        query = {
            "bool": {
                "filter": [{"range": {"inactive_us": {"lt": time_us}}}],
                "must_not": [{"exists": {"field": "pending_since"}}, {"exists": {"field": "due_at"}}],
            }
        }
        if old := self._search(query, "updated_at", CHUNK):
            self.put([replace(state, times=NEVER) for state in old])

    def inactive_since(self, time_us: int, after: str) -> list[AccountState]:
        """Return some of the accounts that were last seen inactive at a time or later, by DID, from the first
        one after `after` on."""
        query = {
            "bool": {
                "should": [
                    {"range": {"inactive_us": {"gte": time_us}}},
                    # Perhaps deleted, but not due, as an event may be missing.
                    {"bool": {"must_not": [{"exists": {"field": "found_at"}}]}},
                ]
            }
        }
        found = {"bool": {"filter": [query, {"range": {"did": {"gt": after}}}]}}
        return self._search(found, "did", CHUNK)

    def count(self, query: Json) -> int:
        """Return the number of states for which a query holds."""
        response = self._elastic.client.count(index=STATE_INDEX, query=self._of_index(query))
        return int(response["count"])

    def last_found(self, after: datetime, until: datetime) -> tuple[int, datetime | None]:
        """Return the number of deletions that a server received in a period, and when the last one was."""
        found = self._elastic.client.search(
            index=STATE_INDEX,
            query=self._of_index(
                {"range": {"found_at": {"gt": after.isoformat(), "lte": until.isoformat()}}}
            ),
            sort=[{"found_at": "desc"}],
            size=1,
            track_total_hits=True,
        )["hits"]
        times = [_state(hit).found_at for hit in found["hits"]]
        return int(found["total"]["value"]), next(iter(times), None)

    def oldest_pending(self) -> datetime | None:
        """Return since when the oldest pending state is pending; None if none is."""
        found = self._search({"exists": {"field": "pending_since"}}, "pending_since", 1)
        return found[0].pending_since if found else None

    def _search(self, query: Json, order: str, limit: int) -> list[AccountState]:
        found = self._elastic.client.search(
            index=STATE_INDEX,
            query=self._of_index(query),
            sort=[{order: "asc"}],
            size=limit,
            seq_no_primary_term=True,
        )
        return [_state(hit) for hit in found["hits"]["hits"]]

    def _of_index(self, query: Json) -> Json:
        return state_documents.of_kind(_TYPE, self._index, query)

    def _id(self, did: str) -> str:
        # Elasticsearch accepts 512 bytes; a DID may be longer.
        return f"{_TYPE}:{self._index}:{hashlib.blake2b(did.encode(), digest_size=16).hexdigest()}"

    def _action(self, state: AccountState) -> Action:
        target: Json = {"_index": STATE_INDEX, "_id": self._id(state.did)}
        if state.version is None:
            return b"%b\n%b" % (orjson.dumps({"create": target}), orjson.dumps(self._document(state)))
        target |= {"if_seq_no": state.version[0], "if_primary_term": state.version[1]}
        if state.is_over:
            return orjson.dumps({"delete": target})
        return b"%b\n%b" % (orjson.dumps({"index": target}), orjson.dumps(self._document(state)))

    def _document(self, state: AccountState) -> Json:
        return {
            "type": _TYPE,
            "index": self._index,
            "did": state.did,
            **state.times._asdict(),
            "pending_since": state.pending_since,
            "has_history": state.has_history,
            "found_at": state.found_at,
            "due_at": state.due_at,
            "redacted_us": state.redacted_us,
            "updated_at": utc_now(),
        }


def _state(hit: Mapping[str, Any]) -> AccountState:
    source = hit["_source"]
    version = (hit["_seq_no"], hit["_primary_term"]) if "_seq_no" in hit else None
    return AccountState(
        source["did"],
        AccountTimes(*(source[name] for name in AccountTimes._fields)),
        _time(source["pending_since"]),
        source["has_history"],
        _time(source["found_at"]),
        _time(source["due_at"]),
        source["redacted_us"],
        version,
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
