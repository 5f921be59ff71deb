"""What we imported into a Kibana, kept in Elasticsearch: it tells an edit from our own older version."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from elasticsearch import AuthorizationException, NotFoundError

from slurp.elastic.client import Elastic, describe
from slurp.elastic.templates import STATE_INDEX
from slurp.kibana.client import Key

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImportedObject:
    """One object at its import: our version and content, and how Kibana showed it right afterwards.

    `ours` and `seen` are digests. They differ where a newer Kibana migrates what it imports.
    """

    version: str
    ours: str
    seen: str
    updated_at: str


class ImportRecord:
    """The objects of one `--index` in one space, one document."""

    def __init__(self, elastic: Elastic, index: str, space: str) -> None:
        self._elastic = elastic
        self._index = index
        self._id = f"kibana:{index}:{space or 'default'}"
        self._version: tuple[int, int] | None = None
        self._told = False

    def load(self) -> dict[Key, ImportedObject]:
        """Raises what the client raises for a cluster in trouble. Without the privilege: no memory."""
        self._version = None
        try:
            found = self._elastic.client.options(request_timeout=15).get(index=STATE_INDEX, id=self._id)
        except NotFoundError:
            return {}
        except AuthorizationException as error:
            self._tell(error)
            return {}
        self._version = found["_seq_no"], found["_primary_term"]
        return dict(_entries(found["_source"].get("objects")))

    def save(self, objects: dict[Key, ImportedObject]) -> None:
        """Raises ConflictError when somebody else has saved since `load`."""
        condition: dict[str, Any] = (
            {"op_type": "create"}
            if self._version is None
            else {"if_seq_no": self._version[0], "if_primary_term": self._version[1]}
        )
        document = {
            "type": "kibana",
            "index": self._index,
            "objects": {f"{kind}:{name}": asdict(one) for (kind, name), one in objects.items()},
            "updated_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        try:
            self._elastic.client.options(request_timeout=15).index(
                index=STATE_INDEX, id=self._id, document=document, **condition
            )
        except AuthorizationException as error:
            self._tell(error)

    def _tell(self, error: AuthorizationException) -> None:
        if not self._told:
            self._told = True
            log.warning("can't remember what Kibana got, so it will not be replaced: %s", describe(error))


def _entries(objects: Any) -> list[tuple[Key, ImportedObject]]:
    entries = []
    for key, about in objects.items() if isinstance(objects, dict) else ():
        kind, _, name = key.partition(":")
        try:
            entries.append(((kind, name), ImportedObject(**about)))
        except TypeError:
            # Of a version that keeps something else; it counts as not remembered.
            continue
    return entries
