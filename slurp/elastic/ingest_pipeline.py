"""The ingest pipeline of day indices: `<index>` is ours and calls `<index>@custom`, which is the user's.

A pipeline costs the node CPU for each event, so ours is attached, as `index.default_pipeline`, only while
there is one to call. Another default pipeline, of a day or in the component template `<index>@custom`, was
chosen by the user and stays.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from elasticsearch import ApiError, AuthorizationException, Elasticsearch, NotFoundError

from slurp.elastic.client import Elastic, describe, error_of
from slurp.elastic.lifecycle import EVERY, our_days
from slurp.elastic.templates import (
    MARK,
    Change,
    belongs_to_others,
    component_template,
    is_ours,
    put_part,
)

log = logging.getLogger(__name__)

Json = dict[str, Any]

_SETTING = "default_pipeline"
_RETRY_AFTER = 60.0


def put_pipeline(client: Elasticsearch, index: str) -> Change:
    """Put our pipeline unless it is there."""
    body = _pipeline(index)
    return put_part(
        f"ingest pipeline {index!r}",
        find_pipeline(client, index),
        body,
        lambda: client.ingest.put_pipeline(
            id=index,
            description=body["description"],
            processors=body["processors"],
            on_failure=body["on_failure"],
            meta=body["_meta"],
        ),
    )


def _pipeline(index: str) -> Json:
    """It rejects no document: one that the user's pipeline fails on is marked and indexed."""
    return {
        "description": f"Calls {index}@custom, where it exists",
        "processors": [{"pipeline": {"name": custom_name(index), "ignore_missing_pipeline": True}}],
        "on_failure": [
            {"set": {"field": "event.pipeline_error", "value": "{{{_ingest.on_failure_message}}}"}}
        ],
        "_meta": MARK,
    }


def custom_name(index: str) -> str:
    return f"{index}@custom"


def find_pipeline(client: Elasticsearch, name: str) -> Json | None:
    try:
        found: Json | None = client.ingest.get_pipeline(id=name).body.get(name)
    except NotFoundError:
        return None
    return found


class Attachment:
    """Attaches the pipeline to the days of `index`, present and future, or detaches it: `apply`.

    `step` does so once an hour, for a pipeline of the user's may appear and go while the worker runs.
    """

    def __init__(self, index: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._index = index
        self._monotonic = monotonic
        self._due = 0.0
        # Days that took no change: they are not tried again.
        self._left: set[str] = set()

    def step(self, elastic: Elastic, beat: Callable[[], None]) -> bool:
        """Return whether it looked. Raises what the client raises for a cluster in trouble."""
        now = self._monotonic()
        if now < self._due:
            return False
        self._due = now + _RETRY_AFTER
        try:
            self.apply(elastic.client.options(request_timeout=30), beat)
        except AuthorizationException as error:
            log.warning("the ingest pipeline of day indices stays as it is: %s", describe(error))
        self._due = now + EVERY
        return True

    def apply(self, client: Elasticsearch, beat: Callable[[], None] = lambda: None) -> None:
        """Bring template and days to what the pipelines ask for. Raises what the client raises.

        `beat` is called before each day that is changed.
        """
        self._due = self._monotonic() + EVERY
        wanted = self._is_wanted(client)
        if wanted and find_pipeline(client, self._index) is None:
            # First: documents of an index whose pipeline is missing are rejected.
            put_pipeline(client, self._index)
        self._change_template(client, wanted)
        custom = component_template(client, f"{self._index}@custom")
        if custom is None or _SETTING not in _index_settings(custom):
            self._change_days(client, wanted, beat)

    def _is_wanted(self, client: Elasticsearch) -> bool:
        """Whether there is a pipeline of the user's: one that ours calls, or one under the name of ours."""
        if find_pipeline(client, custom_name(self._index)) is not None:
            return True
        there = find_pipeline(client, self._index)
        return there is not None and not is_ours(there.get("_meta"))

    def _change_template(self, client: Elasticsearch, wanted: bool) -> None:
        """For the days to come. Only this setting is touched: another worker may have other options."""
        name = f"{self._index}@settings"
        there = component_template(client, name)
        if there is None or belongs_to_others(there.get("_meta")):
            return
        settings = _index_settings(there)
        # One of another name is not ours.
        if settings.get(_SETTING) != (None if wanted else self._index):
            return
        if wanted:
            settings[_SETTING] = self._index
        else:
            del settings[_SETTING]
        client.cluster.put_component_template(name=name, template=there["template"], meta=there["_meta"])
        self._say(wanted)

    def _say(self, wanted: bool) -> None:
        custom = custom_name(self._index)
        if wanted:
            log.info("ingest pipeline %s: attached to day indices, as it or %s is yours", self._index, custom)
        else:
            log.info("ingest pipeline %s: detached from day indices: there is no %s", self._index, custom)

    def _change_days(self, client: Elasticsearch, wanted: bool, beat: Callable[[], None]) -> None:
        found = client.indices.get_settings(index=f"{self._index}-*", name=f"index.{_SETTING}")
        current = {name: body["settings"]["index"][_SETTING] for name, body in found.items()}
        if not wanted and self._index not in current.values():
            return
        for name in our_days(client, self._index):
            # A default pipeline of another name is not ours.
            if current.get(name) != (None if wanted else self._index) or name in self._left:
                continue
            beat()
            try:
                client.indices.put_settings(
                    index=name, settings={f"index.{_SETTING}": self._index if wanted else None}
                )
            except NotFoundError:
                continue
            except ApiError as error:
                if error_of(error)[0] == "security_exception":
                    raise
                # Read-only, say: then nothing is written to it either.
                self._left.add(name)
                log.warning("index %s keeps its ingest pipeline: %s", name, describe(error))


def _index_settings(component: Json) -> Json:
    """The index settings in the body of a component template, to be read or changed."""
    settings: Json = component["template"].get("settings", {}).get("index", {})
    return settings
