"""The record of imported objects, in Elasticsearch. It distinguishes a user's edit from an older version."""

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
    """An object at the time of its import.

    The fields are those of the stored document. `ours` is the digest of the imported object, `seen` that of
    Kibana's export right afterwards. They differ if a newer Kibana migrates objects at the import.
    """

    version: str
    ours: str
    seen: str
    updated_at: str


class ImportRecord:
    """The imported objects of one `--index` in one space of Kibana, stored as one document."""

    def __init__(self, elastic: Elastic, index: str, space: str) -> None:
        self._elastic = elastic
        self._index = index
        self._id = f"kibana:{index}:{space or 'default'}"
        self._version: tuple[int, int] | None = None
        self._logged = False

    def load(self) -> dict[Key, ImportedObject]:
        """Return the recorded objects, none if the privilege is missing. Raises errors of the client."""
        self._version = None
        try:
            found = self._elastic.client.options(request_timeout=15).get(index=STATE_INDEX, id=self._id)
        except NotFoundError:
            return {}
        except AuthorizationException as error:
            self._log_once(error)
            return {}
        self._version = found["_seq_no"], found["_primary_term"]
        return dict(_entries(found["_source"].get("objects")))

    def save(self, objects: dict[Key, ImportedObject]) -> None:
        """Store the objects. Raises ConflictError when another worker has stored some since `load`."""
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
            self._log_once(error)

    def _log_once(self, error: AuthorizationException) -> None:
        if not self._logged:
            self._logged = True
            log.warning(
                "cannot record the objects imported into Kibana, so upgrades will not replace them: %s",
                describe(error),
            )


def _entries(objects: Any) -> list[tuple[Key, ImportedObject]]:
    entries = []
    for key, about in objects.items() if isinstance(objects, dict) else ():
        kind, _, name = key.partition(":")
        try:
            entries.append(((kind, name), ImportedObject(**about)))
        except TypeError:
            # Written by a version with other fields; treated as not recorded.
            continue
    return entries
