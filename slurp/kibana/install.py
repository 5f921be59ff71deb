"""The import of data views, searches and dashboards into Kibana, on a thread of its own.

Nothing waits for Kibana. Objects that a user has edited are replaced with `--kibana-overwrite` only.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterable
from enum import Enum
from typing import Any
from urllib.parse import quote

from slurp import __version__
from slurp.backoff import Backoff
from slurp.config import Config
from slurp.elastic.client import FAILURES, Elastic, describe
from slurp.elastic.templates import parse_version
from slurp.kibana import objects
from slurp.kibana.client import (
    Conflict,
    Key,
    KibanaClient,
    NotReady,
    Rejected,
    Unauthorized,
    major_minor,
)
from slurp.kibana.comparison import digest
from slurp.kibana.import_record import ImportedObject, ImportRecord
from slurp.logs import Secrets
from slurp.watchdog import Heartbeat

log = logging.getLogger(__name__)

Json = dict[str, Any]

_NOUNS = {
    "index-pattern": ("data view", "data views"),
    "search": ("search", "searches"),
    "dashboard": ("dashboard", "dashboards"),
}
# Each message is logged once. This limits messages that differ every time.
_MAX_MESSAGES = 20


class ObjectState(Enum):
    """The result of comparing an object of this version with the one in Kibana."""

    CREATE = "created"
    REPLACE = "replaced"
    CURRENT = "up to date"
    ADOPT = "up to date, to be recorded"
    EDITED = "edited"
    NEWER = "from a newer version"
    UNKNOWN = "not in the import record"


_TO_IMPORT = (ObjectState.CREATE, ObjectState.REPLACE)
_NOT_REPLACED = (ObjectState.EDITED, ObjectState.UNKNOWN, ObjectState.NEWER)


def classify(
    built: Json,
    version: str,
    existing: Json | None,
    record: ImportedObject | None,
    *,
    overwrite: bool = False,
) -> ObjectState:
    """Compare the object of this version with the one in Kibana and with the record of its last import."""
    if existing is None:
        return ObjectState.CREATE
    if overwrite:
        return ObjectState.REPLACE
    built_digest, existing_digest = digest(built), digest(existing)
    if record is None:
        return ObjectState.ADOPT if built_digest == existing_digest else ObjectState.UNKNOWN
    if built_digest == existing_digest:
        return ObjectState.CURRENT if record.ours == built_digest else ObjectState.ADOPT
    edited = existing.get("updated_at") != record.updated_at and existing_digest != record.seen
    if record.ours == built_digest and not edited:
        return ObjectState.CURRENT
    if parse_version(record.version) > parse_version(version):
        return ObjectState.NEWER
    return ObjectState.EDITED if edited else ObjectState.REPLACE


class Installer:
    """Imports the objects of this version into Kibana, and retries until that has succeeded."""

    def __init__(
        self,
        config: Config,
        elastic: Elastic,
        secrets: Secrets,
        short: Backoff | None = None,
        long: Backoff | None = None,
        version: str = __version__,
    ) -> None:
        """Retry with the `short` back-off while Kibana is down, with `long` after a configuration error."""
        self._kibana = KibanaClient(config, secrets)
        self._record = ImportRecord(elastic, config.index, config.kibana_space)
        self._index, self._space = config.index, config.kibana_space
        self._built: dict[Key, Json] = {}
        self._version = version
        self._overwrite = config.kibana_overwrite
        self._short = short or Backoff(first=1.0, cap=30.0)
        self._long = long or Backoff(first=5.0, cap=300.0)
        self._logged: set[str] = set()
        self._existing: dict[Key, Json] = {}
        # Imports that are not confirmed yet, with the `updated_at` before them: the response may get lost.
        self._unconfirmed: dict[Key, tuple[ObjectState, str | None]] = {}
        self._imported: dict[Key, ObjectState] = {}
        self._to_record: dict[Key, ImportedObject] = {}

    def run(self, stop: threading.Event, heartbeat: Heartbeat | None = None) -> None:
        """Retry until the import has succeeded or `stop` is set."""
        try:
            while not stop.is_set():
                with heartbeat or contextlib.nullcontext():
                    delay = self._try()
                if delay is None:
                    return
                stop.wait(delay)
        finally:
            self._kibana.close()

    def _try(self) -> float | None:
        """Make one attempt. Return None after a success, else the delay before the next one in seconds."""
        try:
            self.install()
        except NotReady as error:
            self._log_once(logging.INFO, f"not ready: {error}; retrying in the background")
        except Conflict as error:
            self._log_once(
                logging.INFO, f"another worker imported at the same time ({error}); checking again"
            )
        except FAILURES as error:
            self._log_once(
                logging.WARNING,
                f"the import record in Elasticsearch is not available: {describe(error)}; retrying",
            )
        except Rejected as error:
            self._short.reset()
            return self._after_rejection(error)
        else:
            return None
        self._long.reset()
        return self._short.next()

    def _after_rejection(self, error: Rejected) -> float:
        """Reload the secret after rejected credentials. Return the delay before the next attempt."""
        if isinstance(error, Unauthorized):
            try:
                if self._kibana.reload_secret():
                    self._log_once(
                        logging.INFO, "credentials rejected; the file of the secret has changed, retrying"
                    )
                    return 0.0
            except ValueError as invalid:
                self._log_once(logging.WARNING, str(invalid))
        self._log_once(logging.WARNING, f"{error}; retrying in the background")
        return self._long.next()

    def _log_once(self, level: int, text: str) -> None:
        if text not in self._logged and len(self._logged) < _MAX_MESSAGES:
            self._logged.add(text)
            log.log(level, "Kibana at %s: %s", self._kibana.url, text)

    def install(self) -> None:
        """Make one attempt. Raises NotReady, Rejected, Conflict, and errors of the Elasticsearch client."""
        version = self._kibana.status()
        self._kibana.check_space()
        has_links = major_minor(version) >= objects.LINKS_VERSION
        built = objects.build(self._index, self._space, has_links=has_links)
        self._built = {(one["type"], one["id"]): one for one in built}
        states = self._compare()
        if any(state in _TO_IMPORT for state in states.values()):
            self._import(states)
            states = self._compare()
            if unchanged := [key for key, state in states.items() if state in _TO_IMPORT]:
                raise Rejected(f"the import reported success, but did not change {self._names(unchanged)}")
        notes = self._notes(states)
        if self._make_default():
            notes.append("the first data view is now the default")
        summary = "; ".join(notes) or "all objects are up to date"
        log.info("Kibana %s at %s: %s%s", version, self._kibana.space_url, summary, self._dashboard_url())

    def _compare(self) -> dict[Key, ObjectState]:
        """Return the state of each object, and record confirmed imports."""
        existing = self._existing = self._kibana.export(self._built)
        self._confirm_imports(existing)
        saved = self._record.load()
        record = saved | self._to_record
        states = {key: self._state(key, existing.get(key), record.get(key)) for key in self._built}
        for key, state in states.items():
            if state is ObjectState.ADOPT:
                record[key] = self._imported_object(key, existing[key])
        if record != saved:
            self._record.save(record)
        self._to_record.clear()
        return states

    def _state(self, key: Key, existing: Json | None, record: ImportedObject | None) -> ObjectState:
        if key in self._imported:
            return ObjectState.CURRENT
        return classify(self._built[key], self._version, existing, record, overwrite=self._overwrite)

    def _confirm_imports(self, existing: dict[Key, Json]) -> None:
        """Count an import as successful if the object's `updated_at` has changed since."""
        for key, (state, updated_before) in self._unconfirmed.items():
            if key in existing and existing[key].get("updated_at") != updated_before:
                self._imported[key] = state
                self._to_record[key] = self._imported_object(key, existing[key])
        self._unconfirmed.clear()

    def _imported_object(self, key: Key, existing: Json) -> ImportedObject:
        return ImportedObject(
            self._version, digest(self._built[key]), digest(existing), str(existing.get("updated_at", ""))
        )

    def _import(self, states: dict[Key, ObjectState]) -> None:
        to_import = {key: state for key, state in states.items() if state in _TO_IMPORT}
        self._unconfirmed = {
            key: (state, self._existing.get(key, {}).get("updated_at")) for key, state in to_import.items()
        }
        try:
            # Without overwriting if all are new: an object that appeared in the meantime is not replaced.
            self._kibana.import_objects(
                [self._built[key] for key in to_import], overwrite=ObjectState.REPLACE in to_import.values()
            )
        except (Rejected, Conflict):
            self._unconfirmed.clear()
            raise

    def _make_default(self) -> bool:
        """Make the first data view the default; return False if there is one or the privilege is missing."""
        first = next((name for kind, name in self._built if kind == "index-pattern"), None)
        if first is None:
            return False
        try:
            return self._kibana.set_default_data_view(first)
        except Rejected as error:
            self._log_once(logging.INFO, f"the default data view was not set: {error}")
            return False

    def _notes(self, states: dict[Key, ObjectState]) -> list[str]:
        notes = []
        for state in _TO_IMPORT:
            if keys := [key for key, imported in self._imported.items() if imported is state]:
                notes.append(f"{_counted(keys)} {state.value}")
        for state in _NOT_REPLACED:
            if keys := [key for key, found in states.items() if found is state]:
                hint = "" if state is ObjectState.NEWER else " (replace with --kibana-overwrite)"
                notes.append(f"not replaced, {state.value}: {self._names(keys)}{hint}")
        return notes

    def _names(self, keys: Iterable[Key]) -> str:
        return ", ".join(f"{_NOUNS.get(key[0], (key[0],))[0]} {_title(self._built[key])!r}" for key in keys)

    def _dashboard_url(self) -> str:
        first = next((name for kind, name in self._built if kind == "dashboard"), None)
        return f"; open {self._kibana.space_url}/app/dashboards#/view/{quote(first)}" if first else ""


def _title(one: Json) -> str:
    return str(one["attributes"].get("name") or one["attributes"].get("title"))


def _counted(keys: Iterable[Key]) -> str:
    """Return the parse_version of objects by type: `1 data view, 2 dashboards`."""
    counts: dict[str, int] = {}
    for kind, _ in keys:
        counts[kind] = counts.get(kind, 0) + 1
    nouns = {kind: _NOUNS.get(kind, (kind, kind)) for kind in counts}
    return ", ".join(f"{count} {nouns[kind][count > 1]}" for kind, count in counts.items())
