"""The documents of `skeetslurper-actors`: the names of accounts that people look at, by DID."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from slurp.elastic.bulk import Action, chunks, send
from slurp.elastic.client import Elastic
from slurp.elastic.error_classes import ItemClass, classify
from slurp.elastic.response_checks import UnexpectedResponse
from slurp.elastic.templates import ACTORS_INDEX

Json = dict[str, Any]

# Elasticsearch accepts no longer `_id`; such an account has no document.
_MAX_ID = 512
# What account events say: the status, and when it began (Unix microseconds).
STATUS = ("status", "status_us")
_NO_INDEX = "index_not_found_exception"


class ActorDocuments:
    """The documents of all accounts. All methods raise the exceptions of the client."""

    def __init__(self, elastic: Elastic) -> None:
        self._elastic = elastic

    def get(self, dids: Iterable[str]) -> dict[str, Json]:
        """Return the documents of those of these accounts that have one."""
        found: dict[str, Json] = {}
        for chunk in chunks(sorted(filter(_is_id, dids))):
            for doc in self._elastic.client.mget(index=ACTORS_INDEX, ids=chunk)["docs"]:
                if (error := doc.get("error")) is not None and error.get("type") != _NO_INDEX:
                    raise UnexpectedResponse(f"the names of an account cannot be read: {error}")
                if doc.get("found"):
                    found[doc["_id"]] = doc["_source"]
        return found

    def put(self, documents: Sequence[Mapping[str, Any]]) -> None:
        """Write documents with the field `did`."""
        actions = [
            b"%b\n%b" % (orjson.dumps({"index": _target(one["did"])}), orjson.dumps(one))
            for one in documents
            if _is_id(one["did"])
        ]
        self._send(actions)

    def hide(self, dids: Iterable[str], *, hidden: bool) -> None:
        """Record that accounts are not active, or active again; those without a document are left out."""
        fields = {"hidden": True if hidden else None}
        self._send([_update(did, fields) for did in self.get(dids)])

    def set_statuses(self, statuses: Mapping[str, tuple[int, str]]) -> None:
        """Record the status of accounts, such as `deactivated`, with the times of their events (Unix
        microseconds); those without a document, or with a later status, are left out."""
        actions = []
        for did, document in self.get(statuses).items():
            status_us, status = statuses[did]
            if _status_us(document) < status_us:
                actions.append(_update(did, {"status": status, "status_us": status_us}))
        self._send(actions)

    def remove(self, dids: Iterable[str]) -> None:
        """Delete the documents of accounts."""
        self._send([orjson.dumps({"delete": _target(did)}) for did in self.get(dids)])

    def _send(self, actions: Sequence[Action]) -> None:
        if not actions:
            return
        for item in send(self._elastic.client, actions):
            # 404: another worker has deleted it. 200 and `noop`: nothing to change.
            if item.status != 404 and classify(item) not in (ItemClass.INDEXED, ItemClass.DROPPED):
                raise UnexpectedResponse(f"the names of an account cannot be written: {item}")


def _status_us(document: Json) -> int:
    value = document.get("status_us")
    return value if isinstance(value, int) else 0


def _target(did: str) -> Json:
    return {"_index": ACTORS_INDEX, "_id": did}


def _update(did: str, fields: Mapping[str, Any]) -> Action:
    return b"%b\n%b" % (orjson.dumps({"update": _target(did)}), orjson.dumps({"doc": fields}))


def _is_id(did: str) -> bool:
    return 0 < len(did.encode()) <= _MAX_ID
