"""Whose fault is a failed item: the document's, the cluster's, our rights', or unknown.

Decided by `error.type`: on a real cluster a closed index, the shard limit and a missing pipeline
are 400 like a bad document, the flood-stage block is 429, a missing right is a 403 inside a 200, and a
document that a user's pipeline fails on is a 500.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class ItemClass(Enum):
    INDEXED = "indexed"
    DUPLICATE = "duplicate"
    DROPPED = "taken, and dropped by a pipeline: there is no document"
    DOCUMENT = "the document's fault: quarantine"
    HOLD = "cluster trouble: hold and retry"
    DENIED = "credentials or rights: stop sending"
    UNKNOWN = "never seen: ask a canary"


# The type of an item for which there was none.
NO_ANSWER = "no_answer"


class Item(NamedTuple):
    """The answer to one item of a bulk request."""

    status: int
    type: str = ""
    reason: str = ""
    result: str = ""
    # Whether the request failed as a whole, which says nothing of a single document.
    whole: bool = False

    def __str__(self) -> str:
        if self.type == NO_ANSWER:
            return self.reason
        return f"{self.status} {self.type}: {self.reason}"


_DOCUMENT_TYPES = frozenset(
    ("document_parsing_exception", "mapper_parsing_exception", "strict_dynamic_mapping_exception")
)
# An illegal argument is the document's only when it names something in the document.
_DOCUMENT_REASONS = ("contains at least one immense term", "id is too long", "failed to parse", "field name")
_CLUSTER_TYPES = frozenset(
    (
        "already_closed_exception",
        "circuit_breaking_exception",
        "cluster_block_exception",
        "connect_transport_exception",
        "es_rejected_execution_exception",
        "illegal_index_shard_state_exception",
        "index_closed_exception",
        "index_not_found_exception",
        "index_shard_closed_exception",
        "index_shard_not_started_exception",
        "master_not_discovered_exception",
        "no_shard_available_action_exception",
        "node_closed_exception",
        "node_disconnected_exception",
        "node_not_connected_exception",
        "not_master_exception",
        "primary_missing_action_exception",
        "process_cluster_event_timeout_exception",
        "receive_timeout_transport_exception",
        "retry_on_primary_exception",
        "send_request_transport_exception",
        "shard_not_found_exception",
        "shard_not_in_primary_mode_exception",
        "unavailable_shards_exception",
        "validation_exception",
    )
)
_CLUSTER_REASONS = ("pipeline with id", "maximum normal shards open", "maximum shards open", "is_write_index")
_DENIED_TYPES = frozenset(("security_exception",))
# "Later": a request time-out, too many requests, and a server behind that is away.
_TRANSIENT = frozenset((408, 429, 502, 503, 504))


def may_pass(item: Item) -> bool:
    """Whether an error says by its status that it does not last."""
    return item.status in _TRANSIENT


def classify(item: Item) -> ItemClass:
    if item.type in _DENIED_TYPES or item.status == 401:
        return ItemClass.DENIED
    if item.whole:
        return ItemClass.HOLD
    if 200 <= item.status < 300:
        return ItemClass.DROPPED if item.result == "noop" else ItemClass.INDEXED
    if item.status == 409:
        return ItemClass.DUPLICATE
    if item.type in _DOCUMENT_TYPES:
        return ItemClass.DOCUMENT
    if item.type in _CLUSTER_TYPES:
        return ItemClass.HOLD
    if item.type == "illegal_argument_exception":
        if any(text in item.reason for text in _CLUSTER_REASONS):
            return ItemClass.HOLD
        if any(text in item.reason for text in _DOCUMENT_REASONS):
            return ItemClass.DOCUMENT
    return ItemClass.UNKNOWN
