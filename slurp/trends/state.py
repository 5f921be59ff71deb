"""The stored state of the trends of one `--index`: what is computed, and who computes now."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from elasticsearch import ConflictError

from slurp.elastic import state_documents
from slurp.elastic.client import Elastic
from slurp.elastic.templates import STATE_INDEX
from slurp.trends.schedule import Schedule

_KIND = "trends"
# Seconds after which another worker may compute, if this one does not write its state any more.
_LEASE = 300.0


class LeaseLost(Exception):
    """Another worker computes trends: this one must not write rows any more."""


@dataclass
class TrendState:
    """The state while this worker has the lease.

    Attributes:
        schedule: what was computed.
        generation: that of the last computation; each one has a higher number.
    """

    schedule: Schedule
    generation: int


class Lease:
    """The right to compute the trends of one `--index`. All methods raise the exceptions of the client.

    The state is one document. A write is conditional on what was read, so only one worker has the lease.
    """

    def __init__(self, elastic: Elastic, index: str, clock: Callable[[], float] = time.time) -> None:
        self._elastic = elastic
        self._index = index
        self._clock = clock
        self._owner = uuid4().hex
        self._version: dict[str, Any] = {}

    def acquire(self) -> TrendState | None:
        """Return the state; None while another worker has the lease."""
        found = state_documents.find(self._elastic.client, _KIND, self._index)
        source: dict[str, Any] = {} if found is None else dict(found["_source"])
        until = source.get("lease_until", 0.0)
        # A lease that is longer than it can be comes from a clock that was wrong.
        if source.get("owner") not in (None, self._owner) and 0 < until - self._clock() <= _LEASE:
            return None
        self._version = (
            {"op_type": "create"}
            if found is None
            else {"if_seq_no": found["_seq_no"], "if_primary_term": found["_primary_term"]}
        )
        state = TrendState(Schedule.from_json(source.get("schedule", {})), source.get("generation", 0))
        try:
            self.save(state)
        except LeaseLost:
            return None
        return state

    def next_generation(self, state: TrendState) -> int:
        """Return the number of the next computation. Raises LeaseLost."""
        # In milliseconds, so that changes of a row by deletions, which count its version up, do not reach it.
        state.generation = max(state.generation + 1, int(self._clock() * 1000))
        self.save(state)
        return state.generation

    def save(self, state: TrendState) -> None:
        """Store the state and extend the lease. Raises LeaseLost."""
        self._store(state, self._owner, self._clock() + _LEASE)

    def release(self, state: TrendState) -> None:
        """Store the state, and let another worker compute. Raises LeaseLost."""
        self._store(state, None, 0.0)

    def _store(self, state: TrendState, owner: str | None, until: float) -> None:
        document = {
            "type": _KIND,
            "index": self._index,
            "owner": owner,
            "lease_until": until,
            "generation": state.generation,
            "schedule": state.schedule.as_json(),
        }
        try:
            response = self._elastic.client.index(
                index=STATE_INDEX,
                id=state_documents.document_id(_KIND, self._index),
                document=document,
                **self._version,
            )
        except ConflictError as error:
            raise LeaseLost from error
        self._version = {
            "if_seq_no": response["_seq_no"],
            "if_primary_term": response["_primary_term"],
        }
