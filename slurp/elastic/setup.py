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
from slurp.elastic.templates import (
    DRIFT_INDEX,
    MARK,
    STATE_INDEX,
    STATS_INDEX,
    Layout,
    Templates,
    asset,
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
        self.features = Features()

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

    def put_templates(self, client: Elasticsearch) -> None:
        """Put the templates again, which somebody has deleted while we run."""
        if self._config.no_setup:
            raise Fatal(f"index template {self._index!r} is gone: an administrator has to run --setup-only")
        self._templates().put(client)

    def _put(self, client: Elasticsearch) -> None:
        for name in _OWN_INDICES:
            try:
                _put_own_index(client, name)
            except AuthorizationException as error:
                # A worker without stats is still a worker.
                if name != STATS_INDEX:
                    raise
                log.warning("%s left as it is: Elasticsearch denies us %s", name, missing_privilege(error))
        if self.features.lifecycle:
            lifecycle.put_policy_unless_shorter(client, self._index, self._config.retention_days)
        if self.features.pipeline:
            put_pipeline(client, self._index)
        if self._templates().put(client):
            self._add_new_fields(client)

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
        meta = index_template_meta(client, self._index)
        if meta is None or not is_ours(meta):
            yield f"there is no index template {self._index!r} of ours"
        elif version_of(meta) < numbers(__version__):
            yield f"index template {self._index!r} is of an older version"
        for name in _OWN_INDICES:
            try:
                there = index_exists(client, name)
            except AuthorizationException:
                if name != STATS_INDEX:
                    raise
                continue  # the first document that can't be written will tell
            if not there:
                yield f"there is no index {name}"

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


def missing_privilege(error: AuthorizationException) -> str:
    """Its name, as Elasticsearch tells it: the least of those that would do."""
    reason = error_of(error)[1]
    found = _GRANTED_BY.search(reason)
    return f"the {found[1]} privilege {found[2]!r}" if found else f"a privilege ({describe(error)})"


def put_pipeline(client: Elasticsearch, name: str) -> None:
    """It marks what it can't do and never drops a document."""
    try:
        there = client.ingest.get_pipeline(id=name).body.get(name, {}).get("_meta")
    except NotFoundError:
        pass
    else:
        if not is_ours(there) or version_of(there) > numbers(__version__):
            log.warning("ingest pipeline %r is of a newer version or not ours, leaving it alone", name)
            return
    client.ingest.put_pipeline(
        id=name,
        description="Stamps the time at which Elasticsearch took the event",
        processors=[{"set": {"field": "event.ingested", "value": "{{{_ingest.timestamp}}}"}}],
        on_failure=[{"set": {"field": "event.pipeline_error", "value": "{{{_ingest.on_failure_message}}}"}}],
        meta=MARK,
    )


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


def _put_own_index(client: Elasticsearch, name: str) -> None:
    # Looked at first: to create is a privilege that a later start can do without.
    try:
        found = mapping_of(client, name).get("_meta")
    except NotFoundError:
        if create_own_index(client, name):
            return
        found = None
    if version_of(found) < numbers(__version__):
        mappings = _own_index(name)["mappings"]
        _put_mapping(client, name, mappings["properties"], mappings["_meta"])


def _put_mapping(client: Elasticsearch, name: str, properties: dict[str, Any], meta: dict[str, Any]) -> None:
    try:
        client.indices.put_mapping(index=name, properties=properties, meta=meta)
    except (BadRequestError, NotFoundError) as error:
        log.warning("%s keeps its mapping: %s", name, describe(error))
    else:
        log.info("%s: mapping brought up to date", name)


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
