"""The checkpoint: the position below which all events are acknowledged, stored in Elasticsearch."""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from elasticsearch import ConflictError, NotFoundError

from slurp.elastic.client import Elastic
from slurp.elastic.setup import create_own_index, index_exists
from slurp.elastic.templates import STATE_INDEX
from slurp.errors import Fatal
from slurp.events.position import REWIND_OTHER_HOST_US, Position
from slurp.jetstream.subscription import Subscription

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A saved position of one host's stream.

    `is_start` is true while the position is only where reading started: no event has been acknowledged.
    `clean` is true after a clean shutdown; it is informational.
    """

    position: Position
    is_start: bool
    clean: bool


class Checkpoints:
    """The checkpoints of one subscription, one document per host."""

    def __init__(self, elastic: Elastic, subscription: Subscription) -> None:
        self._elastic = elastic
        self._subscription = subscription
        self._writer = uuid.uuid4().hex
        self._saved: dict[str, Checkpoint] = {}
        self._versions: dict[str, tuple[int, int]] = {}
        # Host and writer of writes by others after `load`.
        self._late: set[tuple[str, str]] = set()

    def load(self) -> list[Checkpoint]:
        """Return the checkpoints of earlier runs, the newest by stream time first.

        Not by time of writing: a replay of old days must not become the position to resume at.
        """
        client = self._elastic.client
        # A search finds refreshed documents only, and the last writer may have died just now.
        client.indices.refresh(index=STATE_INDEX)
        found = client.search(
            index=STATE_INDEX,
            query={
                "bool": {
                    "filter": [
                        {"term": {"type": "checkpoint"}},
                        {"term": {"subscription": self._subscription.key}},
                    ]
                }
            },
            sort=[{"time_us": "desc"}, {"updated_at": "desc"}],
            size=100,
            seq_no_primary_term=True,
        )
        checkpoints = []
        for hit in found["hits"]["hits"]:
            checkpoint = _read(hit["_source"])
            self._saved[checkpoint.position.host] = checkpoint
            self._versions[checkpoint.position.host] = hit["_seq_no"], hit["_primary_term"]
            checkpoints.append(checkpoint)
        return checkpoints

    def save(self, checkpoint: Checkpoint) -> bool:
        """Save a checkpoint that is beyond the saved one; return whether it was written.

        A host without a checkpoint gets none while old days are replayed from it: the others are beyond it.

        Raises the exceptions of the client, and Fatal when another worker writes the same checkpoint.
        """
        before = self._saved.get(checkpoint.position.host)
        if before is not None and not _is_beyond(checkpoint, before):
            return False
        if before is None and self._is_left_behind(checkpoint.position):
            return False
        try:
            self._write(checkpoint)
        except ConflictError:
            self._resolve_conflict(checkpoint.position.host)
            self._write(checkpoint)
        self._saved[checkpoint.position.host] = checkpoint
        return True

    def _is_left_behind(self, position: Position) -> bool:
        # After a change of hosts, reading resumes this long before the newest position.
        newest = max((saved.position.time_us for saved in self._saved.values()), default=0)
        return position.time_us < newest - REWIND_OTHER_HOST_US

    def _write(self, checkpoint: Checkpoint) -> None:
        version = self._versions.get(checkpoint.position.host)
        condition: dict[str, Any] = (
            {"op_type": "create"}
            if version is None
            else {"if_seq_no": version[0], "if_primary_term": version[1]}
        )
        client = self._elastic.client.options(request_timeout=15)
        # Even a write that conflicts creates a deleted index again, with dynamic types.
        if not index_exists(client, STATE_INDEX) and create_own_index(client, STATE_INDEX):
            log.warning("index %s was deleted, created it again", STATE_INDEX)
        response = client.index(
            index=STATE_INDEX,
            id=self._subscription.document_id(checkpoint.position.host),
            document=self._document(checkpoint),
            **condition,
        )
        self._versions[checkpoint.position.host] = response["_seq_no"], response["_primary_term"]

    def _resolve_conflict(self, host: str) -> None:
        """Find the writer of the conflicting version, and continue from that version.

        It may be our own write whose response was lost, or the last write of a killed worker, which a busy
        cluster executes late. A second write of the same writer is that of a running worker: an error.
        """
        doc_id = self._subscription.document_id(host)
        try:
            found = self._elastic.client.options(request_timeout=15).get(index=STATE_INDEX, id=doc_id)
        except NotFoundError:
            log.warning("the checkpoint %s was deleted; writing it again", doc_id)
            self._versions.pop(host, None)
            return
        writer = found["_source"]["writer"]
        if writer != self._writer:
            if (host, writer) in self._late:
                raise Fatal(
                    f"another worker writes the checkpoint {doc_id} too: stop one of them, "
                    "or give them different values of --worker-name or --index"
                )
            self._late.add((host, writer))
            log.warning("the checkpoint %s was written by an earlier run meanwhile; writing it again", doc_id)
        self._versions[host] = found["_seq_no"], found["_primary_term"]

    def _document(self, checkpoint: Checkpoint) -> dict[str, Any]:
        return {
            "type": "checkpoint",
            **self._subscription.describe(),
            "subscription": self._subscription.key,
            "host": checkpoint.position.host,
            "cursor": checkpoint.position.cursor,
            "time_us": checkpoint.position.time_us,
            "started": checkpoint.is_start,
            "clean": checkpoint.clean,
            "writer": self._writer,
            "updated_at": datetime.now(UTC).isoformat(timespec="microseconds"),
        }


def _is_beyond(new: Checkpoint, old: Checkpoint) -> bool:
    if new.is_start:
        return False
    if old.is_start or new.position.is_beyond(old.position):
        return True
    return new.position == old.position and new.clean != old.clean


def _read(source: dict[str, Any]) -> Checkpoint:
    return Checkpoint(
        position=Position(source["host"], source["cursor"], source["time_us"]),
        is_start=source["started"],
        clean=source["clean"],
    )
