"""The ingest pipeline of daily indices: the managed pipeline `<index>` calls the user's pipeline
`<index>@custom`.

A pipeline costs the node CPU time for each event. So the managed one is attached to the daily indices, as
`index.default_pipeline`, only while there is a user's pipeline to call. Another default pipeline, of a day
index or in the component template `<index>@custom`, was chosen by the user and is not changed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from elasticsearch import ApiError, AuthorizationException, Elasticsearch, NotFoundError

from slurp.elastic.client import Elastic, describe, error_details
from slurp.elastic.days import managed_day_indices
from slurp.elastic.lifecycle import CHECK_INTERVAL
from slurp.elastic.templates import (
    MANAGED_META,
    Change,
    component_template,
    is_foreign_or_newer,
    is_managed,
    put_if_changed,
)

log = logging.getLogger(__name__)

Json = dict[str, Any]

_SETTING = "default_pipeline"
# Seconds until a check that failed is repeated.
_RETRY_INTERVAL = 60.0


def put_pipeline(client: Elasticsearch, index: str) -> Change:
    """Put the managed pipeline, unless it exists in this form."""
    body = _pipeline_body(index)
    return put_if_changed(
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


def _pipeline_body(index: str) -> Json:
    """Return a pipeline that rejects no document: if the user's pipeline fails, the document is stored with
    the error."""
    return {
        "description": f"Calls {index}@custom, where it exists",
        "processors": [{"pipeline": {"name": custom_name(index), "ignore_missing_pipeline": True}}],
        "on_failure": [
            {"set": {"field": "event.pipeline_error", "value": "{{{_ingest.on_failure_message}}}"}}
        ],
        "_meta": MANAGED_META,
    }


def custom_name(index: str) -> str:
    """Return the name of the user's pipeline."""
    return f"{index}@custom"


def find_pipeline(client: Elasticsearch, name: str) -> Json | None:
    """Return the body of an ingest pipeline, None if it does not exist."""
    try:
        found: Json | None = client.ingest.get_pipeline(id=name).body.get(name)
    except NotFoundError:
        return None
    return found


class PipelineAttachment:
    """The managed pipeline as the default pipeline of present and future daily indices of one `--index`.

    `apply` attaches or detaches it. `step` does so once an hour, since the user may create or delete a
    pipeline while the worker is running.
    """

    def __init__(self, index: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._index = index
        self._monotonic = monotonic
        self._due = 0.0
        # Indices that rejected the change; it is not tried again.
        self._rejecting: set[str] = set()

    def step(self, elastic: Elastic, heartbeat: Callable[[], None]) -> bool:
        """Call `apply` if a check is due; return whether it was. Raises the exceptions of the client."""
        now = self._monotonic()
        if now < self._due:
            return False
        self._due = now + _RETRY_INTERVAL
        try:
            self.apply(elastic.client.options(request_timeout=30), heartbeat)
        except AuthorizationException as error:
            log.warning("the ingest pipeline of daily indices is not changed: %s", describe(error))
        self._due = now + CHECK_INTERVAL
        return True

    def apply(self, client: Elasticsearch, heartbeat: Callable[[], None] = lambda: None) -> None:
        """Attach or detach the pipeline, depending on the pipelines that exist.

        `heartbeat` is called before each index that is changed. Raises the exceptions of the client.
        """
        self._due = self._monotonic() + CHECK_INTERVAL
        is_wanted = self._is_wanted(client)
        if is_wanted and find_pipeline(client, self._index) is None:
            # Before it is attached: an index rejects documents if its default pipeline is missing.
            put_pipeline(client, self._index)
        self._change_template(client, is_wanted)
        custom = component_template(client, f"{self._index}@custom")
        if custom is None or _SETTING not in _index_settings(custom):
            self._change_indices(client, is_wanted, heartbeat)

    def _is_wanted(self, client: Elasticsearch) -> bool:
        """Return whether there is a user's pipeline: `<index>@custom`, or one in place of the managed one."""
        if find_pipeline(client, custom_name(self._index)) is not None:
            return True
        pipeline = find_pipeline(client, self._index)
        return pipeline is not None and not is_managed(pipeline.get("_meta"))

    def _change_template(self, client: Elasticsearch, is_wanted: bool) -> None:
        """Change the setting for future daily indices, and no other one: another worker may have other
        options."""
        name = f"{self._index}@settings"
        component = component_template(client, name)
        if component is None or is_foreign_or_newer(component.get("_meta")):
            return
        settings = _index_settings(component)
        # A default pipeline of another name was chosen by the user.
        if settings.get(_SETTING) != (None if is_wanted else self._index):
            return
        if is_wanted:
            settings[_SETTING] = self._index
        else:
            del settings[_SETTING]
        client.cluster.put_component_template(
            name=name, template=component["template"], meta=component["_meta"]
        )
        self._log_change(is_wanted)

    def _log_change(self, is_attached: bool) -> None:
        custom = custom_name(self._index)
        if is_attached:
            log.info(
                "ingest pipeline %s: attached to daily indices, because it or %s was created by the user",
                self._index,
                custom,
            )
        else:
            log.info("ingest pipeline %s: detached from daily indices: there is no %s", self._index, custom)

    def _change_indices(self, client: Elasticsearch, is_wanted: bool, heartbeat: Callable[[], None]) -> None:
        found = client.indices.get_settings(index=f"{self._index}-*", name=f"index.{_SETTING}")
        current = {name: body["settings"]["index"][_SETTING] for name, body in found.items()}
        if not is_wanted and self._index not in current.values():
            return
        for name in managed_day_indices(client, self._index):
            # A default pipeline of another name was chosen by the user.
            if current.get(name) != (None if is_wanted else self._index) or name in self._rejecting:
                continue
            heartbeat()
            try:
                client.indices.put_settings(
                    index=name, settings={f"index.{_SETTING}": self._index if is_wanted else None}
                )
            except NotFoundError:
                continue
            except ApiError as error:
                if error_details(error)[0] == "security_exception":
                    raise
                # For example a read-only index, which does not need the pipeline.
                self._rejecting.add(name)
                log.warning("index %s keeps its ingest pipeline: %s", name, describe(error))


def _index_settings(component: Json) -> Json:
    """Return the index settings in the body of a component template, as a reference into it."""
    settings: Json = component["template"].get("settings", {}).get("index", {})
    return settings
