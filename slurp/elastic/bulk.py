"""Bulk requests: actions in, one answer per action out, whatever the request as a whole met."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import orjson
from elasticsearch import ApiError, Elasticsearch, helpers

from slurp.elastic.client import BULK_TIMEOUT, error_of
from slurp.elastic.error_classes import Item
from slurp.elastic.response_checks import UnexpectedAnswer

MAX_CHUNK_BYTES = 10_000_000

_FILTER_PATH = (
    "items.*.status,items.*.result,items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason"
)

# These come back for the request as a whole and mean one of its items, or its size.
_GUILTY_INSIDE = (400, 413)


# Nearly every answer.
_CREATED = Item(201)


# One action of a bulk request, serialised: a line, a second for a `create`, and no line break behind
# them. In one piece, as the bulk helper handles each piece of an action.
Action = bytes


def create(index: str, doc_id: str, body: bytes) -> Action:
    """The action that adds a document, `body` (JSON), unless its `_id` is there. The others need no
    escaping: both are made of letters, digits, dots, dashes and underscores."""
    return f'{{"create":{{"_index":"{index}","_id":"{doc_id}"}}}}\n'.encode() + body


def create_beside(index: str, doc_id: str, body: bytes, routing: str) -> Action:
    """The same, in the shard of the document whose `_id` is `routing`."""
    return f'{{"create":{{"_index":"{index}","_id":"{doc_id}","routing":"{routing}"}}}}\n'.encode() + body


def delete_beside(index: str, doc_id: str, routing: str) -> Action:
    """The action that takes such a document away."""
    return f'{{"delete":{{"_index":"{index}","_id":"{doc_id}","routing":"{routing}"}}}}'.encode()


def id_of(action: Action) -> str:
    """The `_id` that an action is about."""
    (target,) = orjson.loads(action.split(b"\n", 1)[0]).values()
    return str(target["_id"])


# What a request took: seconds, and whether it was answered.
Took = Callable[[float, bool], None]


def send(
    client: Elasticsearch,
    actions: Sequence[Action],
    beat: Callable[[], None] = lambda: None,
    took: Took = lambda seconds, answered: None,
) -> Iterator[Item]:
    """One answer per action, in their order.

    A request refused as a whole for what is in it is halved until the guilty item stands alone.
    Raises ApiError for the other refusals and TransportError when there is no answer: then some of
    the actions without an answer may have been applied, which sending them again tells (409). `beat`
    is called before each request, `took` after it.
    """
    beat()
    try:
        answers = _timed(client, actions, beat, took)
    except ApiError as error:
        if error.status_code not in _GUILTY_INSIDE:
            raise
        if len(actions) > 1:
            middle = len(actions) // 2
            yield from send(client, actions[:middle], beat, took)
            yield from send(client, actions[middle:], beat, took)
            return
        answers = [Item(error.status_code, *error_of(error))]
    yield from answers


def _timed(
    client: Elasticsearch, actions: Sequence[Action], beat: Callable[[], None], took: Took
) -> list[Item]:
    began, answered = time.monotonic(), False
    try:
        answers = request(client, actions, beat)
        answered = True
    finally:
        took(time.monotonic() - began, answered)
    return answers


def request(
    client: Elasticsearch, actions: Sequence[Action], beat: Callable[[], None] = lambda: None
) -> list[Item]:
    """One request, or several where it is too large for one: one answer per action. Raises as `send` does,
    and ApiError whatever it is refused for. `beat` is called for each answer."""
    # A finite batch a call: over an endless generator parallel_bulk never returns after an error.
    # raise_on_exception stays on: the helper can't unfold an exception over serialised actions.
    found = helpers.parallel_bulk(
        client,
        cast(Any, actions),
        thread_count=1,
        chunk_size=len(actions),
        max_chunk_bytes=MAX_CHUNK_BYTES,
        expand_action_callback=cast(Any, _as_it_is),
        raise_on_error=False,
        filter_path=_FILTER_PATH,
        timeout=BULK_TIMEOUT,
    )
    items = []
    for _, answer in found:
        beat()
        items.append(_item(answer))
    if len(items) != len(actions):
        raise UnexpectedAnswer(f"{len(items)} answers to {len(actions)} actions of a bulk request")
    return items


def _as_it_is(action: Action) -> tuple[Action, None]:
    return action, None


def _item(answer: dict[str, Any]) -> Item:
    (fields,) = answer.values()
    error = fields.get("error")
    if error is None:
        # Elasticsearch 8 answers 200 and `noop` for a document that an ingest pipeline dropped.
        return (
            _CREATED if fields["status"] == 201 else Item(fields["status"], result=fields.get("result", ""))
        )
    if not isinstance(error, dict):
        return Item(fields["status"], "unknown", str(error))
    reason = str(error.get("reason", ""))
    caused = error.get("caused_by")
    cause = caused.get("reason") if isinstance(caused, dict) else None
    return Item(fields["status"], str(error.get("type", "")), f"{reason} ({cause})" if cause else reason)
