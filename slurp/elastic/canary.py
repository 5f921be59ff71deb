"""Canary documents, which show whether an unknown error type is caused by the document or by the cluster.

A canary is a document that is known to be valid. It is created, and deleted again, in the shard that rejected
a document. If the shard accepts the canary, the document caused the error. A user's ingest pipeline may
reject the canary because it lacks the fields of events; then a copy of an event that was accepted just before
is used as a second canary.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable

from slurp.elastic.bulk import Action, action_id, create_routed, delete_routed, request
from slurp.elastic.client import FAILURES, Elastic, describe
from slurp.elastic.daily_indices import DailyIndices
from slurp.elastic.error_classes import Item, ItemClass, classify, is_transient

log = logging.getLogger(__name__)

_CANARY = b'{"kind":"canary"}'
_TIMEOUT = 15.0
_NOT_FOUND = 404
# Seconds for which an error that may be transient is retried before a canary is sent.
_RETRY_PERIOD = 30.0


class CanaryCheck:
    """The canary checks for one batch. Results are valid for one attempt to send it, until
    `begin_attempt`."""

    def __init__(self, elastic: Elastic, days: DailyIndices, heartbeat: Callable[[], None]) -> None:
        self._elastic = elastic
        self._days = days
        self._heartbeat = heartbeat
        # By day: the action of a document that was accepted.
        self._accepted: dict[int, Action] = {}
        # By day and error type: why the canary was not accepted ('' if it was), and when to send one.
        self._problems: dict[tuple[int, str], str] = {}
        self._due: dict[tuple[int, str], float] = {}

    def begin_attempt(self, accepted: Iterable[tuple[int, Action]]) -> None:
        """Discard the results of the last attempt; `accepted` are days and actions accepted in this one."""
        self._accepted.update(accepted)
        self._problems.clear()

    def resolve(self, day: int, action: Action, item: Item) -> tuple[ItemClass, Item]:
        """Return DOCUMENT_ERROR or CLUSTER_ERROR for an UNKNOWN_ERROR, and the item with the result added.

        A server error (5xx) may affect all documents as long as no other document of that day was accepted.
        It is retried for _RETRY_PERIOD first, as is an error with a transient status. If it lasts, a canary
        is sent.
        """
        key = day, item.type
        if key not in self._problems:
            now = time.monotonic()
            may_recover = is_transient(item) or (item.status >= 500 and day not in self._accepted)
            if may_recover and now < self._due.setdefault(key, now + _RETRY_PERIOD):
                return ItemClass.CLUSTER_ERROR, item
            self._problems[key] = self._check(day, action_id(action), item)
            self._due[key] = now + (_RETRY_PERIOD if self._problems[key] else 0)
        if problem := self._problems[key]:
            return ItemClass.CLUSTER_ERROR, item._replace(reason=f"{item.reason}; and {problem}")
        return ItemClass.DOCUMENT_ERROR, item

    def _check(self, day: int, routing: str, item: Item) -> str:
        """Return why the shard of the document with the `_id` `routing` rejects canaries; '' if it
        accepts."""
        result, problem = self._send(day, _CANARY, routing, item)
        if result is ItemClass.UNKNOWN_ERROR and (accepted := self._accepted.get(day)) is not None:
            _, problem = self._send(day, accepted.split(b"\n", 1)[1], routing, item)
        return problem

    def _send(self, day: int, body: bytes, routing: str, item: Item) -> tuple[ItemClass, str]:
        """Send one canary; return its result, and why this does not prove a document error ('' if it
        does)."""
        self._heartbeat()
        index = self._days.name(day)
        client = self._elastic.client.options(request_timeout=_TIMEOUT)
        canary = f"canary-{uuid.uuid4().hex}"
        try:
            # One request: if the second of two requests failed, the canary would stay in the index.
            actions = [
                create_routed(index, canary, body, routing),
                delete_routed(index, canary, routing),
            ]
            created, deleted = request(client, actions)
        except FAILURES as error:
            return ItemClass.CLUSTER_ERROR, f"{index} rejects a canary document as well ({describe(error)})"
        result = classify(created)
        if result is ItemClass.DROPPED:
            # The pipeline works, but this tells nothing about the shard.
            is_conclusive = day in self._accepted
            return result, "" if is_conclusive else f"a pipeline of {index} drops the canary document"
        if result is not ItemClass.INDEXED:
            return result, f"{index} rejects a canary document as well ({created})"
        # 404: a user's pipeline moved it to another index.
        if classify(deleted) is not ItemClass.INDEXED and deleted.status != _NOT_FOUND:
            log.warning("cannot delete the canary document %s from %s: %s", canary, index, deleted)
        log.debug("%s accepts a canary document, so this is a document error: %s", index, item)
        return result, ""
