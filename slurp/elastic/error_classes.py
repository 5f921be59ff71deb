"""Classification of the result of one bulk action: stored, failed because of the document, the cluster, or
missing privileges, or of unknown cause.

The decision is made by `error.type`, because the HTTP status is ambiguous on a real cluster: a closed index,
the shard limit and a missing pipeline are 400 like an invalid document, the flood-stage disk block is 429, a
missing privilege is a 403 item inside a 200 response, and a failure in a user's ingest pipeline is 500.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class ItemClass(Enum):
    INDEXED = "stored by this request"
    DUPLICATE = "already in the index"
    DROPPED = "accepted, then dropped by an ingest pipeline: no document is stored"
    DOCUMENT_ERROR = "the document is invalid: quarantine it"
    CLUSTER_ERROR = "the cluster cannot store it now: hold and retry"
    ACCESS_DENIED = "credentials or privileges are missing: hold, and end the program if this lasts"
    UNKNOWN_ERROR = "unknown error type: test with a canary document"


# The error type of an item for which no response was received.
NO_RESPONSE = "no_response"


class Item(NamedTuple):
    """The result of one action of a bulk request."""

    status: int
    type: str = ""
    reason: str = ""
    result: str = ""
    # True if the request failed as a whole, which does not tell anything about a single document.
    is_whole_request: bool = False

    def __str__(self) -> str:
        if self.type == NO_RESPONSE:
            return self.reason
        if self.result == "noop":
            return "an ingest pipeline dropped the document"
        return f"{self.status} {self.type}: {self.reason}"


_DOCUMENT_ERROR_TYPES = frozenset(
    ("document_parsing_exception", "mapper_parsing_exception", "strict_dynamic_mapping_exception")
)
# An illegal_argument_exception is a document error only if its reason names a part of the document.
_DOCUMENT_ERROR_REASONS = (
    "contains at least one immense term",
    "id is too long",
    "failed to parse",
    "field name",
)
_CLUSTER_ERROR_TYPES = frozenset(
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
_CLUSTER_ERROR_REASONS = (
    "pipeline with id",
    "maximum normal shards open",
    "maximum shards open",
    "is_write_index",
)
_ACCESS_DENIED_TYPES = frozenset(("security_exception",))
# Request time-out, too many requests, and an upstream server that is unavailable.
_TRANSIENT_STATUSES = frozenset((408, 429, 502, 503, 504))


def is_transient(item: Item) -> bool:
    """Return whether the HTTP status of an error means that a later attempt may succeed."""
    return item.status in _TRANSIENT_STATUSES


def classify(item: Item) -> ItemClass:
    """Return the class of the result of one action."""
    if item.type in _ACCESS_DENIED_TYPES or item.status == 401:
        return ItemClass.ACCESS_DENIED
    if item.is_whole_request:
        return ItemClass.CLUSTER_ERROR
    if 200 <= item.status < 300:
        return ItemClass.DROPPED if item.result == "noop" else ItemClass.INDEXED
    if item.status == 409:
        return ItemClass.DUPLICATE
    if item.type in _DOCUMENT_ERROR_TYPES:
        return ItemClass.DOCUMENT_ERROR
    if item.type in _CLUSTER_ERROR_TYPES:
        return ItemClass.CLUSTER_ERROR
    if item.type == "illegal_argument_exception":
        if any(text in item.reason for text in _CLUSTER_ERROR_REASONS):
            return ItemClass.CLUSTER_ERROR
        if any(text in item.reason for text in _DOCUMENT_ERROR_REASONS):
            return ItemClass.DOCUMENT_ERROR
    return ItemClass.UNKNOWN_ERROR
