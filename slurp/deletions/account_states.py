"""The stored state of accounts that are not active: one document each in the state index.

A state holds the latest times at which the account was active, not active and deleted, so two workers may add
to it in any order. It stays while the account is not active, whatever happens to the day of its event.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import orjson

from slurp.deletions.versions import CHUNK, chunks, utc_now
from slurp.elastic import state_documents
from slurp.elastic.bulk import Action, send
from slurp.elastic.client import Elastic
from slurp.elastic.error_classes import ItemClass, classify
from slurp.elastic.response_checks import UnexpectedResponse
from slurp.elastic.templates import STATE_INDEX
from slurp.events.removals import NEVER, AccountTimes

Json = dict[str, Any]

_TYPE = "account"


@dataclass(frozen=True)
class AccountState:
    """The stored state of one account.

    Attributes:
        times: the latest times of its changes.
        pending_since: since when its documents may not correspond to `times`; None if they do.
        found_at: when its deletion was first seen; None without a deletion.
        due_at: when its documents are to be redacted; None if they are, and without a deletion.
        redacted_us: the time of the deletion that was carried out; 0 for none.
        version: sequence number and primary term of the document; None before it is stored.
    """

    did: str
    times: AccountTimes = NEVER
    pending_since: datetime | None = None
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

    def due(self, now: datetime, limit: int, held: Iterable[tuple[str, str]]) -> list[AccountState]:
        """Return some of the deleted accounts that are to be redacted by now, unless their deletion was seen
        in one of the periods `held`."""
        query = {
            "bool": {
                "filter": [{"range": {"due_at": {"lte": now.isoformat()}}}],
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

    def count(self, query: Json) -> int:
        """Return the number of states for which a query holds."""
        response = self._elastic.client.count(index=STATE_INDEX, query=self._of_index(query))
        return int(response["count"])

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
        AccountTimes(source["active_us"], source["inactive_us"], source["deleted_us"]),
        _time(source["pending_since"]),
        _time(source["found_at"]),
        _time(source["due_at"]),
        source["redacted_us"],
        version,
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
