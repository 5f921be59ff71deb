"""What the nodes of a cluster can do. Asked, not assumed: a small distribution lacks some of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from elasticsearch import Elasticsearch

_NAMES = {
    "pipeline": "ingest processors (no ingest pipeline)",
    "lifecycle": "index lifecycle management (we delete old days ourselves)",
    "folding": "analysis filters (text search without folding and CJK bigrams)",
}


@dataclass(frozen=True, slots=True)
class Features:
    """Each is true when every node has it."""

    pipeline: bool = False
    lifecycle: bool = False
    folding: bool = False

    @property
    def missing(self) -> list[str]:
        return [_NAMES[field.name] for field in fields(self) if not getattr(self, field.name)]


def detect(client: Elasticsearch) -> Features:
    """Raises what the client raises; needs the cluster privilege `monitor`."""
    found = client.nodes.info(
        metric="plugins,ingest",
        filter_path="nodes.*.version,nodes.*.ingest.processors.type,nodes.*.modules.name",
    ).body
    nodes = list(found.get("nodes", {}).values())
    modules = _on_each(nodes, lambda node: node.get("modules", []), "name")
    processors = _on_each(nodes, lambda node: node.get("ingest", {}).get("processors", []), "type")
    return Features(
        pipeline=processors >= {"pipeline", "set"},
        lifecycle="x-pack-ilm" in modules,
        folding="analysis-common" in modules,
    )


def _on_each(nodes: list[Mapping[str, Any]], entries: Any, key: str) -> set[str]:
    sets = [{entry[key] for entry in entries(node)} for node in nodes]
    return set.intersection(*sets) if sets else set()
