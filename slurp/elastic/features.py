"""Detection of the features of a cluster: a minimal distribution lacks some of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from elasticsearch import Elasticsearch

# For the log: each feature and the consequence if it is missing. A plugin is never in a distribution.
_DESCRIPTIONS = {
    "pipeline": "ingest processors (no ingest pipeline)",
    "lifecycle": "index lifecycle management (the worker deletes old days)",
    "folding": "analysis filters (searches find less, see docs/text-search.md)",
}


@dataclass(frozen=True, slots=True)
class Features:
    """The optional features; each is True if every node has it."""

    pipeline: bool = False
    lifecycle: bool = False
    folding: bool = False
    icu: bool = False

    @property
    def missing(self) -> list[str]:
        """Descriptions of the missing features."""
        return [text for name, text in _DESCRIPTIONS.items() if not getattr(self, name)]


def detect(client: Elasticsearch) -> Features:
    """Return the features of the cluster.

    Needs the cluster privilege `monitor`. Raises the exceptions of the client.
    """
    response = client.nodes.info(
        metric="plugins,ingest",
        filter_path="nodes.*.version,nodes.*.ingest.processors.type,nodes.*.modules.name,nodes.*.plugins.name",
    ).body
    nodes = list(response.get("nodes", {}).values())
    modules = _on_each_node(nodes, lambda node: node.get("modules", []), "name")
    plugins = _on_each_node(nodes, lambda node: node.get("plugins", []), "name")
    processors = _on_each_node(nodes, lambda node: node.get("ingest", {}).get("processors", []), "type")
    return Features(
        pipeline=processors >= {"pipeline", "set"},
        lifecycle="x-pack-ilm" in modules,
        folding="analysis-common" in modules,
        icu="analysis-icu" in plugins,
    )


def _on_each_node(nodes: list[Mapping[str, Any]], entries: Any, key: str) -> set[str]:
    sets = [{entry[key] for entry in entries(node)} for node in nodes]
    return set.intersection(*sets) if sets else set()
