"""Kibana gets our objects as soon as it is up; nothing waits for it, and nobody's edits are lost."""

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
from slurp.kibana.client import Conflict, Key, Kibana, NotReady, Refused, Unauthorized
from slurp.kibana.comparison import digest
from slurp.kibana.import_record import ImportedObject, ImportRecord
from slurp.logs import Secrets
from slurp.watchdog import Pulse

log = logging.getLogger(__name__)

Json = dict[str, Any]

_NOUNS = {
    "index-pattern": ("data view", "data views"),
    "search": ("search", "searches"),
    "dashboard": ("dashboard", "dashboards"),
}
# Texts of failures are told once each; those that never repeat would be told forever.
_MOST_TOLD = 20


class ItemClass(Enum):
    """What is to be done with an object."""

    CREATE = "created"
    REPLACE = "replaced"
    CURRENT = "up to date"
    ADOPT = "up to date, not remembered yet"
    EDITED = "edited"
    NEWER = "of a newer version"
    UNKNOWN = "not remembered as ours"


_WRITES = (ItemClass.CREATE, ItemClass.REPLACE)
_LEFT_ALONE = (ItemClass.EDITED, ItemClass.UNKNOWN, ItemClass.NEWER)


def classify(
    ours: Json, version: str, there: Json | None, known: ImportedObject | None, *, overwrite: bool = False
) -> ItemClass:
    """Compare an object of ours with what Kibana has and with what we remember of its import."""
    if there is None:
        return ItemClass.CREATE
    if overwrite:
        return ItemClass.REPLACE
    mine, theirs = digest(ours), digest(there)
    if known is None:
        return ItemClass.ADOPT if mine == theirs else ItemClass.UNKNOWN
    if mine == theirs:
        return ItemClass.CURRENT if known.ours == mine else ItemClass.ADOPT
    edited = there.get("updated_at") != known.updated_at and theirs != known.seen
    if known.ours == mine and not edited:
        return ItemClass.CURRENT
    if parse_version(known.version) > parse_version(version):
        return ItemClass.NEWER
    return ItemClass.EDITED if edited else ItemClass.REPLACE


class Installer:
    """The work of the kibana thread."""

    def __init__(
        self,
        config: Config,
        elastic: Elastic,
        secrets: Secrets,
        soon: Backoff | None = None,
        rarely: Backoff | None = None,
        version: str = __version__,
    ) -> None:
        self._kibana = Kibana(config, secrets)
        self._memory = ImportRecord(elastic, config.index, config.kibana_space)
        self._ours: dict[Key, Json] = {
            (one["type"], one["id"]): one for one in objects.build(config.index, config.kibana_space)
        }
        self._version = version
        self._overwrite = config.kibana_overwrite
        self._soon = soon or Backoff(first=1.0, cap=30.0)
        self._rarely = rarely or Backoff(first=5.0, cap=300.0)
        self._told: set[str] = set()
        self._there: dict[Key, Json] = {}
        # Sent and not seen yet, with what Kibana said of their age before: an answer can get lost.
        self._sent: dict[Key, tuple[ItemClass, str | None]] = {}
        self._done: dict[Key, ItemClass] = {}
        self._fresh: dict[Key, ImportedObject] = {}

    def run(self, stop: threading.Event, pulse: Pulse | None = None) -> None:
        """Try until it is done, as long as that takes."""
        try:
            while not stop.is_set():
                with pulse or contextlib.nullcontext():
                    wait = self._try()
                if wait is None:
                    return
                stop.wait(wait)
        finally:
            self._kibana.close()

    def _try(self) -> float | None:
        """One try; None once it is done, else the seconds until the next."""
        try:
            self.install()
        except NotReady as error:
            self._tell(logging.INFO, f"is not ready: {error}; trying in the background")
        except Conflict as error:
            self._tell(logging.INFO, f"somebody else was quicker ({error}); looking again")
        except FAILURES as error:
            self._tell(logging.WARNING, f"waits for our state in Elasticsearch: {describe(error)}")
        except Refused as error:
            self._soon.reset()
            return self._after_refusal(error)
        else:
            return None
        self._rarely.reset()
        return self._soon.next()

    def _after_refusal(self, error: Refused) -> float:
        if isinstance(error, Unauthorized):
            try:
                if self._kibana.read_secret_again():
                    self._tell(logging.INFO, "refused our secret, whose file holds another one now")
                    return 0.0
            except ValueError as problem:
                self._tell(logging.WARNING, str(problem))
        self._tell(logging.WARNING, f"{error}; trying again now and then")
        return self._rarely.next()

    def _tell(self, level: int, text: str) -> None:
        if text not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(text)
            log.log(level, "Kibana at %s: %s", self._kibana.url, text)

    def install(self) -> None:
        """One try. Raises NotReady, Refused, Conflict, and what the Elasticsearch client raises."""
        version = self._kibana.status()
        self._kibana.check_space()
        verdicts = self._look()
        if any(verdict in _WRITES for verdict in verdicts.values()):
            self._import(verdicts)
            verdicts = self._look()
            if lost := [key for key, verdict in verdicts.items() if verdict in _WRITES]:
                raise Refused(f"it said success, but {self._names(lost)} did not change")
        notes = self._notes(verdicts)
        if self._make_default():
            notes.append("the first data view is the default now")
        head = "; ".join(notes) or "everything is there, nothing to do"
        log.info("Kibana %s at %s: %s%s", version, self._kibana.space_url, head, self._see())

    def _look(self) -> dict[Key, ItemClass]:
        """Judge each object, and remember what has arrived."""
        there = self._there = self._kibana.export(self._ours)
        self._note_arrivals(there)
        memory = self._memory.load()
        known = memory | self._fresh
        verdicts = {key: self._judge(key, there.get(key), known.get(key)) for key in self._ours}
        for key, verdict in verdicts.items():
            if verdict is ItemClass.ADOPT:
                known[key] = self._remembered(key, there[key])
        if known != memory:
            self._memory.save(known)
        self._fresh.clear()
        return verdicts

    def _judge(self, key: Key, there: Json | None, known: ImportedObject | None) -> ItemClass:
        if key in self._done:
            return ItemClass.CURRENT
        return classify(self._ours[key], self._version, there, known, overwrite=self._overwrite)

    def _note_arrivals(self, there: dict[Key, Json]) -> None:
        for key, (verdict, before) in self._sent.items():
            if key in there and there[key].get("updated_at") != before:
                self._done[key] = verdict
                self._fresh[key] = self._remembered(key, there[key])
        self._sent.clear()

    def _remembered(self, key: Key, there: Json) -> ImportedObject:
        return ImportedObject(
            self._version, digest(self._ours[key]), digest(there), str(there.get("updated_at", ""))
        )

    def _import(self, verdicts: dict[Key, ItemClass]) -> None:
        writes = {key: verdict for key, verdict in verdicts.items() if verdict in _WRITES}
        self._sent = {
            key: (verdict, self._there.get(key, {}).get("updated_at")) for key, verdict in writes.items()
        }
        try:
            # Not to overwrite when all are new: whatever came meanwhile is not ours.
            self._kibana.import_objects(
                [self._ours[key] for key in writes], overwrite=ItemClass.REPLACE in writes.values()
            )
        except (Refused, Conflict):
            self._sent.clear()
            raise

    def _make_default(self) -> bool:
        """The first data view; a right that is missing for this alone is no failure."""
        first = next((name for kind, name in self._ours if kind == "index-pattern"), None)
        if first is None:
            return False
        try:
            return self._kibana.set_default_data_view(first)
        except Refused as error:
            self._tell(logging.INFO, f"the default data view stays as it is: {error}")
            return False

    def _notes(self, verdicts: dict[Key, ItemClass]) -> list[str]:
        notes = []
        for verdict in _WRITES:
            if keys := [key for key, done in self._done.items() if done is verdict]:
                notes.append(f"{_counted(keys)} {verdict.value}")
        for verdict in _LEFT_ALONE:
            if keys := [key for key, found in verdicts.items() if found is verdict]:
                remedy = "" if verdict is ItemClass.NEWER else " (--kibana-overwrite replaces them)"
                notes.append(f"left alone, {verdict.value}: {self._names(keys)}{remedy}")
        return notes

    def _names(self, keys: Iterable[Key]) -> str:
        return ", ".join(f"{_NOUNS.get(key[0], (key[0],))[0]} {_title(self._ours[key])!r}" for key in keys)

    def _see(self) -> str:
        first = next((name for kind, name in self._ours if kind == "dashboard"), None)
        return f"; see {self._kibana.space_url}/app/dashboards#/view/{quote(first)}" if first else ""


def _title(one: Json) -> str:
    return str(one["attributes"].get("name") or one["attributes"].get("title"))


def _counted(keys: Iterable[Key]) -> str:
    counts: dict[str, int] = {}
    for kind, _ in keys:
        counts[kind] = counts.get(kind, 0) + 1
    nouns = {kind: _NOUNS.get(kind, (kind, kind)) for kind in counts}
    return ", ".join(f"{count} {nouns[kind][count > 1]}" for kind, count in counts.items())
