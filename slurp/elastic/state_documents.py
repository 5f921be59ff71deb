"""Documents of the state index about one `--index`: of some kinds there is one, of others there are many."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from elasticsearch import Elasticsearch, NotFoundError

from slurp.elastic.templates import STATE_INDEX

Json = dict[str, Any]


def document_id(kind: str, index: str) -> str:
    """Return the `_id` of the only document of a kind."""
    return f"{kind}:{index}"


def find(client: Elasticsearch, kind: str, index: str) -> Any:
    """Return the only document of a kind, with `_source` and version; None if there is none."""
    try:
        return client.get(index=STATE_INDEX, id=document_id(kind, index))
    except NotFoundError:
        return None


def save(client: Elasticsearch, kind: str, index: str, fields: Mapping[str, Any]) -> None:
    """Write the only document of a kind."""
    document = {
        **fields,
        "type": kind,
        "index": index,
        "updated_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    client.index(index=STATE_INDEX, id=document_id(kind, index), document=document)


def of_kind(kind: str, index: str, *conditions: Json) -> Json:
    """Return the query for the documents of a kind for which all conditions hold."""
    return {"bool": {"filter": [{"term": {"type": kind}}, {"term": {"index": index}}, *conditions]}}
