"""Errors of an unknown type: the document's fault, or the cluster's?

Asked with a canary: a document that is known to be good is created, and deleted again, in the shard that
rejected the other one. If the shard takes it, the document is at fault. A user's pipeline may reject the
canary, which lacks what events have; then a copy of an event that was accepted just now is the second one.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable

from slurp.elastic.bulk import Action, create_beside, delete_beside, id_of, request
from slurp.elastic.client import FAILURES, Elastic, describe
from slurp.elastic.daily_indices import DailyIndices
from slurp.elastic.error_classes import Item, ItemClass, classify, may_pass

log = logging.getLogger(__name__)

_CANARY = b'{"kind":"canary"}'
_TIMEOUT = 15.0
_NOT_FOUND = 404
# Seconds for which an error that may pass is waited for before anybody is asked.
_ASK_AFTER = 30.0


class Canaries:
    """The questions about one batch. Answers hold for one attempt to send it: for one `begin`."""

    def __init__(self, elastic: Elastic, days: DailyIndices, beat: Callable[[], None]) -> None:
        self._elastic = elastic
        self._days = days
        self._beat = beat
        # By day, the action of a document that was accepted.
        self._taken: dict[int, Action] = {}
        # By day and type of the error: why the canary was not taken ('' if it was), and when to ask.
        self._troubles: dict[tuple[int, str], str] = {}
        self._due: dict[tuple[int, str], float] = {}

    def begin(self, taken: Iterable[tuple[int, Action]]) -> None:
        """Note the days and actions of the documents that were accepted in this attempt."""
        self._taken.update(taken)
        self._troubles.clear()

    def ask(self, day: int, action: Action, item: Item) -> tuple[ItemClass, Item]:
        """Return DOCUMENT or HOLD for an error that `judge` does not know, and the item, with what is known.

        An error of the server (5xx) may be everybody's while no other document of that day was taken: it is
        waited for, like one whose status says that it passes. One that lasts is asked about as well.
        """
        question = day, item.type
        if question not in self._troubles:
            now = time.monotonic()
            waits = may_pass(item) or (item.status >= 500 and day not in self._taken)
            if waits and now < self._due.setdefault(question, now + _ASK_AFTER):
                return ItemClass.HOLD, item
            self._troubles[question] = self._send(day, id_of(action), item)
            self._due[question] = now + (_ASK_AFTER if self._troubles[question] else 0)
        if trouble := self._troubles[question]:
            return ItemClass.HOLD, item._replace(reason=f"{item.reason}; and {trouble}")
        return ItemClass.DOCUMENT, item

    def _send(self, day: int, routing: str, item: Item) -> str:
        """Return why the shard of the document with the `_id` `routing` takes no canary; '' if it does."""
        verdict, trouble = self._try(day, _CANARY, routing, item)
        if verdict is ItemClass.UNKNOWN and (accepted := self._taken.get(day)) is not None:
            _, trouble = self._try(day, accepted.split(b"\n", 1)[1], routing, item)
        return trouble

    def _try(self, day: int, body: bytes, routing: str, item: Item) -> tuple[ItemClass, str]:
        """Send one canary; return what became of it, and why that does not prove the document at fault."""
        self._beat()
        index = self._days.name(day)
        client = self._elastic.client.options(request_timeout=_TIMEOUT)
        canary = f"canary-{uuid.uuid4().hex}"
        try:
            # One request: of two, the second may be rejected, and the canary would stay.
            actions = [
                create_beside(index, canary, body, routing),
                delete_beside(index, canary, routing),
            ]
            taken, removed = request(client, actions)
        except FAILURES as error:
            return ItemClass.HOLD, f"{index} takes no canary either ({describe(error)})"
        verdict = classify(taken)
        if verdict is ItemClass.DROPPED:
            # The pipeline works; of the shard this says nothing.
            known = day in self._taken
            return verdict, "" if known else f"a pipeline of {index} drops the canary that asks about it"
        if verdict is not ItemClass.INDEXED:
            return verdict, f"{index} takes no canary either ({taken})"
        # 404: a user's pipeline moved it to another index.
        if classify(removed) is not ItemClass.INDEXED and removed.status != _NOT_FOUND:
            log.warning("%s keeps the canary %s: %s", index, canary, removed)
        log.debug("%s takes a canary, so the document is at fault: %s", index, item)
        return verdict, ""
