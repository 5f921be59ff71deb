"""Bulk requests that return one result for each action, also if a request as a whole is rejected."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import orjson
from elasticsearch import ApiError, Elasticsearch, helpers

from slurp.elastic.client import BULK_TIMEOUT, error_details
from slurp.elastic.error_classes import Item
from slurp.elastic.response_checks import UnexpectedResponse

MAX_CHUNK_BYTES = 10_000_000
# Names, or documents, of one request.
CHUNK = 1000

_FILTER_PATH = (
    "items.*.status,items.*.result,items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason"
)

# A request that is rejected with one of these contains an invalid item, or is too large.
_REJECTED_FOR_CONTENT = (400, 413)

T = TypeVar("T")

# Shared, because it is the result of nearly every action.
CREATED = Item(201)
_CREATED_RESULT = {"create": {"status": 201, "result": "created"}}
_RESULTS_PER_BEAT = 256

# One action of a bulk request as NDJSON: one line, for a `create` two, without a newline at the end. It is a
# single bytes object because the bulk helper processes each line of an action separately.
Action = bytes


def create(index: str, doc_id: str, body: bytes) -> Action:
    """Return an action that stores `body` (JSON) unless a document with this `_id` exists.

    Index and `_id` consist of letters, digits, dots, dashes and underscores and need no escaping.
    """
    return f'{{"create":{{"_index":"{index}","_id":"{doc_id}"}}}}\n'.encode() + body


def create_routed(index: str, doc_id: str, body: bytes, routing: str) -> Action:
    """Return the same action for the shard of the document whose `_id` is `routing`."""
    return f'{{"create":{{"_index":"{index}","_id":"{doc_id}","routing":"{routing}"}}}}\n'.encode() + body


def delete_routed(index: str, doc_id: str, routing: str) -> Action:
    """Return an action that deletes a document created by `create_routed`."""
    return f'{{"delete":{{"_index":"{index}","_id":"{doc_id}","routing":"{routing}"}}}}'.encode()


def replace_hit(hit: Mapping[str, Any], body: bytes, **options: str) -> Action:
    """Return the action that replaces the document of a search hit by `body` (JSON), unless it has changed.

    The search must have asked for `seq_no_primary_term`.
    """
    return b"%b\n%b" % (orjson.dumps({"index": {**_unchanged(hit), **options}}), body)


def update_hit(hit: Mapping[str, Any], fields: Mapping[str, Any]) -> Action:
    """Return the action that changes some fields of the document of a search hit, unless it has changed."""
    return b"%b\n%b" % (orjson.dumps({"update": _unchanged(hit)}), orjson.dumps({"doc": fields}))


def delete_hit(hit: Mapping[str, Any]) -> Action:
    """Return the action that deletes the document of a search hit, unless it has changed."""
    return orjson.dumps({"delete": _unchanged(hit)})


def _unchanged(hit: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "_index": hit["_index"],
        "_id": hit["_id"],
        "if_seq_no": hit["_seq_no"],
        "if_primary_term": hit["_primary_term"],
    }


def chunks(items: Sequence[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    """Yield the items in parts, by default each small enough for a request or document."""
    for first in range(0, len(items), size):
        yield items[first : first + size]


def action_id(action: Action) -> str:
    """Return the `_id` of the document of an action."""
    (target,) = orjson.loads(action.split(b"\n", 1)[0]).values()
    return str(target["_id"])


# Called after each request with its duration in seconds and whether a result for each action was received.
RequestObserver = Callable[[float, bool], None]


def send(
    client: Elasticsearch,
    actions: Sequence[Action],
    heartbeat: Callable[[], None] = lambda: None,
    observe: RequestObserver = lambda seconds, has_response: None,
) -> Iterator[Item]:
    """Send actions and yield one result for each, in their order.

    A request that is rejected for its content is bisected until the invalid action is the only one.
    `heartbeat` is called before each request, `observe` after it.

    Raises ApiError for other rejections and TransportError if there is no response. Some of the actions
    without a result may have been applied then; the result of a repeated `create` is 409 for these.
    """
    heartbeat()
    try:
        items = _observed_request(client, actions, heartbeat, observe)
    except ApiError as error:
        if error.status_code not in _REJECTED_FOR_CONTENT:
            raise
        if len(actions) > 1:
            middle = len(actions) // 2
            yield from send(client, actions[:middle], heartbeat, observe)
            yield from send(client, actions[middle:], heartbeat, observe)
            return
        items = [Item(error.status_code, *error_details(error))]
    yield from items


def _observed_request(
    client: Elasticsearch,
    actions: Sequence[Action],
    heartbeat: Callable[[], None],
    observe: RequestObserver,
) -> list[Item]:
    started, has_response = time.monotonic(), False
    try:
        items = request(client, actions, heartbeat)
        has_response = True
    finally:
        observe(time.monotonic() - started, has_response)
    return items


def request(
    client: Elasticsearch, actions: Sequence[Action], heartbeat: Callable[[], None] = lambda: None
) -> list[Item]:
    """Send actions in one request, or in several if they are too large for one; return one result for each.

    `heartbeat` is called while results arrive. Raises TransportError as `send` does, and ApiError for any
    rejection.
    """
    # A finite batch for each call: with an endless generator, parallel_bulk does not return after an error.
    # raise_on_exception stays on: the helper cannot assign an exception to serialized actions.
    results = helpers.parallel_bulk(
        client,
        cast(Any, actions),
        thread_count=1,
        chunk_size=len(actions),
        max_chunk_bytes=MAX_CHUNK_BYTES,
        expand_action_callback=cast(Any, _no_expansion),
        raise_on_error=False,
        filter_path=_FILTER_PATH,
        timeout=BULK_TIMEOUT,
    )
    items = []
    for number, (_, result) in enumerate(results):
        if number % _RESULTS_PER_BEAT == 0:
            heartbeat()
        items.append(CREATED if result == _CREATED_RESULT else _item(result))
    if len(items) != len(actions):
        raise UnexpectedResponse(f"{len(items)} results for {len(actions)} actions of a bulk request")
    return items


def _no_expansion(action: Action) -> tuple[Action, None]:
    return action, None


def _item(result: dict[str, Any]) -> Item:
    (fields,) = result.values()
    error = fields.get("error")
    if error is None:
        # Elasticsearch 8 returns 200 and `noop` for a document that an ingest pipeline dropped.
        return CREATED if fields["status"] == 201 else Item(fields["status"], result=fields.get("result", ""))
    if not isinstance(error, dict):
        return Item(fields["status"], "unknown", str(error))
    reason = str(error.get("reason", ""))
    caused_by = error.get("caused_by")
    cause = caused_by.get("reason") if isinstance(caused_by, dict) else None
    return Item(fields["status"], str(error.get("type", "")), f"{reason} ({cause})" if cause else reason)
