"""What the cluster must hold before the first document: policy, pipeline, templates, our own indices."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from elasticsearch import AuthorizationException, BadRequestError, Elasticsearch, NotFoundError

from slurp import __version__
from slurp.config import Config
from slurp.elastic import lifecycle
from slurp.elastic.client import describe, error_of
from slurp.elastic.features import Features, detect
from slurp.elastic.ingest_pipeline import Attachment, find_pipeline, put_pipeline
from slurp.elastic.templates import (
    DRIFT_INDEX,
    MARK,
    STATE_INDEX,
    STATS_INDEX,
    Change,
    Layout,
    Templates,
    asset,
    component_meta,
    day_mappings,
    index_template_meta,
    is_ours,
    numbers,
    version_of,
)
from slurp.errors import Exit, Fatal
from slurp.lexicons import Compiled, LexiconError, committed, compile, load, merge
from slurp.lexicons.mapping import count_fields

log = logging.getLogger(__name__)

_OWN_INDICES = {STATE_INDEX: "state", DRIFT_INDEX: "drift", STATS_INDEX: "stats"}

# How far back days without a retention get the fields of a new version.
_LOOKBACK = 3
_GRANTED_BY = re.compile(r"granted by the (cluster|index) privileges \[([a-z_]+)")


def lexicons(config: Config) -> Compiled:
    """The record types to map: ours and those of `--lexicons`. Raises Fatal when they don't go together."""
    base = committed()
    if config.lexicons is None:
        return base
    try:
        extra = compile(load(config.lexicons), base=base)
        others = count_fields(asset("events")["mappings"]["properties"])
        merged = merge(base, extra, other_fields=others)
    except (LexiconError, OSError) as error:
        raise Fatal(f"--lexicons: {error}", Exit.USAGE) from None
    for warning in extra.warnings:
        log.warning("--lexicons: %s", warning)
    return merged


class Setup:
    """The set-up of one `--index`. `run` can be repeated: what is right already is left as it is."""

    def __init__(self, config: Config, compiled: Compiled, clock: Callable[[], float] = time.time) -> None:
        self._config = config
        self._index = config.index
        self._compiled = compiled
        self._clock = clock
        self._changes: dict[str, Change] = {}
        self.features = Features()
        # None where the set-up, and with it the pipeline of each day, is not ours to change.
        self.attachment: Attachment | None = None

    def run(self, client: Elasticsearch) -> None:
        """Raises what the client raises, and Fatal where a privilege or (--no-setup) a part is missing."""
        try:
            self.features = detect(client)
        except AuthorizationException as error:
            self._without_right(client, error)
            return
        if self._config.no_setup:
            if missing := list(self._missing(client)):
                raise Fatal(
                    f"--no-setup, but {'; '.join(missing)}: an administrator has to run --setup-only once",
                    Exit.USAGE,
                )
            return
        for missing_feature in self.features.missing:
            log.info("the cluster has no %s", missing_feature)
        try:
            self._put(client)
        except AuthorizationException as error:
            self._without_right(client, error)
        else:
            self._report()

    def put_templates(self, client: Elasticsearch) -> None:
        """Put the templates again, which somebody has deleted while we run."""
        if self._config.no_setup:
            raise Fatal(f"index template {self._index!r} is gone: an administrator has to run --setup-only")
        self._templates().put(client)
        if self.attachment is not None:
            self.attachment.apply(client)

    def _put(self, client: Elasticsearch) -> None:
        for name in _OWN_INDICES:
            try:
                self._note(f"index {name}", _put_own_index(client, name))
            except AuthorizationException as error:
                # A worker without stats is still a worker.
                if name != STATS_INDEX:
                    raise
                log.warning("%s left as it is: Elasticsearch denies us %s", name, missing_privilege(error))
        if self.features.lifecycle:
            policy = lifecycle.put_policy_unless_shorter(client, self._index, self._config.retention_days)
            self._note(f"lifecycle policy {self._index}", policy)
        if self.features.pipeline:
            self._note(f"ingest pipeline {self._index}", put_pipeline(client, self._index))
        changes = self._templates().put(client)
        for name, change in changes.items():
            self._note(f"template {name}", change)
        if Change.LEFT_ALONE not in changes.values():
            self._add_new_fields(client)
        if self.features.pipeline:
            attachment = Attachment(self._index)
            attachment.apply(client)
            self.attachment = attachment

    def _note(self, part: str, change: Change) -> None:
        # A start that tries again finds unchanged what it has put itself.
        if change is not Change.UNCHANGED or part not in self._changes:
            self._changes[part] = change

    def _report(self) -> None:
        told = []
        for change in Change:
            parts = [part for part, became in self._changes.items() if became is change]
            if parts:
                told.append(f"{change.value}: {', '.join(parts)}")
        log.info("set-up: %s", "; ".join(told))

    def _templates(self) -> Templates:
        config = self._config
        layout = Layout(config.shards, config.replicas, config.refresh, config.codec, config.max_disk)
        return Templates(self._index, layout, self.features, self._compiled)

    def _add_new_fields(self, client: Elasticsearch) -> None:
        """Days that may still be written get what a new version maps."""
        mappings = day_mappings(self._compiled)
        retention = self._config.retention_days
        oldest = int(self._clock()) // 86_400 - (_LOOKBACK if retention is None else retention)
        for name, meta in lifecycle.our_days(client, self._index).items():
            day = lifecycle.day_in(self._index, name)
            if day is None or day < oldest or meta == mappings["_meta"]:
                continue
            if version_of(meta) > numbers(__version__):
                continue
            there = mapping_of(client, name).get("properties", {})
            _put_mapping(client, name, _absent(mappings["properties"], there), mappings["_meta"])

    def _missing(self, client: Elasticsearch) -> Iterator[str]:
        yield from _missing_part(
            f"index template {self._index!r}", index_template_meta(client, self._index), ours=True
        )
        for name in self._templates().components:
            yield from _missing_part(f"component template {name!r}", component_meta(client, name), ours=True)
        if self.features.pipeline:
            yield from self._missing_unless_denied(
                f"ingest pipeline {self._index!r}", lambda: find_pipeline(client, self._index)
            )
        if self.features.lifecycle:
            yield from self._missing_unless_denied(
                f"lifecycle policy {self._index!r}", lambda: lifecycle.find_policy(client, self._index)
            )
        for name in _OWN_INDICES:
            try:
                there = index_exists(client, name)
            except AuthorizationException:
                if name != STATS_INDEX:
                    raise
                continue  # the first document that can't be written will tell
            if not there:
                yield f"there is no index {name}"

    def _missing_unless_denied(self, part: str, find: Callable[[], dict[str, Any] | None]) -> Iterator[str]:
        try:
            found = find()
        except AuthorizationException as error:
            log.warning("%s is not checked: Elasticsearch denies us %s", part, missing_privilege(error))
            return
        yield from _missing_part(part, None if found is None else found.get("_meta", {}))

    def _without_right(self, client: Elasticsearch, error: AuthorizationException) -> None:
        """Fewer rights are no trouble while somebody else has done the set-up."""
        right = missing_privilege(error)
        try:
            missing = list(self._missing(client))
        except AuthorizationException:
            missing = ["we may not even look at what is there"]
        if missing:
            raise Fatal(
                f"Elasticsearch denies us {right}, and {'; '.join(missing)}: grant it, or let an "
                "administrator run --setup-only once",
                Exit.USAGE,
            ) from None
        log.warning("set-up left as it is: Elasticsearch denies us %s", right)


def _missing_part(part: str, meta: Any, *, ours: bool = False) -> Iterator[str]:
    """What is wrong with a part of the set-up: `meta` is its `_meta`, None where there is no such part.

    `ours` requires that this program created it.
    """
    if meta is None or (ours and not is_ours(meta)):
        yield f"there is no {part}{' of ours' if ours else ''}"
    elif is_ours(meta) and version_of(meta) < numbers(__version__):
        yield f"{part} is of an older version"


def missing_privilege(error: AuthorizationException) -> str:
    """Its name, as Elasticsearch tells it: the least of those that would do."""
    reason = error_of(error)[1]
    found = _GRANTED_BY.search(reason)
    return f"the {found[1]} privilege {found[2]!r}" if found else f"a privilege ({describe(error)})"


def has_our_template(client: Elasticsearch, index: str) -> bool:
    return is_ours(index_template_meta(client, index))


def create_index(client: Elasticsearch, name: str, **body: Any) -> bool:
    """Create an index; False when it is there already."""
    try:
        client.indices.create(index=name, **body)
    except BadRequestError as error:
        if error_of(error)[0] == "resource_already_exists_exception":
            return False
        raise
    return True


def index_exists(client: Elasticsearch, name: str) -> bool:
    """Return whether there is an index, or an alias, of that name. Raises what the client raises.

    By GET: the answer to a HEAD has no body, so that a rejection could not be told from that of a proxy.
    """
    try:
        client.indices.get(index=name, filter_path="*.settings.index.uuid")
    except NotFoundError:
        return False
    return True


def mapping_of(client: Elasticsearch, name: str) -> dict[str, Any]:
    """Return the mapping of an index, which may stand behind an alias of that name."""
    found = client.indices.get_mapping(index=name)
    return next((body["mappings"] for body in found.values()), {})


def create_own_index(client: Elasticsearch, name: str) -> bool:
    """Create one of our indices with its explicit mapping; False when it is there already."""
    return create_index(client, name, **_own_index(name))


def _own_index(name: str) -> dict[str, Any]:
    body = asset(_OWN_INDICES[name])
    body["mappings"]["_meta"] = MARK
    return body


def _put_own_index(client: Elasticsearch, name: str) -> Change:
    # Looked at first: to create is a privilege that a later start can do without.
    try:
        found = mapping_of(client, name).get("_meta")
    except NotFoundError:
        if create_own_index(client, name):
            return Change.CREATED
        found = None
    if version_of(found) == numbers(__version__):
        return Change.UNCHANGED
    if version_of(found) > numbers(__version__):
        return Change.LEFT_ALONE
    mappings = _own_index(name)["mappings"]
    done = _put_mapping(client, name, mappings["properties"], mappings["_meta"])
    return Change.REPLACED if done else Change.LEFT_ALONE


def _put_mapping(client: Elasticsearch, name: str, properties: dict[str, Any], meta: dict[str, Any]) -> bool:
    """Return whether the index took it."""
    try:
        client.indices.put_mapping(index=name, properties=properties, meta=meta)
    except (BadRequestError, NotFoundError) as error:
        log.warning("%s keeps its mapping: %s", name, describe(error))
        return False
    log.info("%s: mapping brought up to date", name)
    return True


def _absent(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the properties `wanted` that `there` lacks.

    One field that the user maps otherwise would make Elasticsearch refuse all of them.
    """
    new: dict[str, Any] = {}
    for name, field in wanted.items():
        old = there.get(name)
        if old is None:
            new[name] = field
        elif inner := _absent(field.get("properties", {}), old.get("properties", {})):
            if _takes_properties(old):
                # Without its type, a nested object would be asked to become a plain one.
                new[name] = {"type": old.get("type", "object"), "properties": inner}
        elif old.get("type") == field.get("type") and (
            inner := _absent(field.get("fields", {}), old.get("fields", {}))
        ):
            new[name] = {**old, "fields": inner}
    return new


def _takes_properties(field: Mapping[str, Any]) -> bool:
    return field.get("type", "object") in ("object", "nested") and field.get("enabled", True) is not False
