"""The setup of Elasticsearch before the first document: lifecycle policy, ingest pipeline, templates, and the
indices for state, unknown fields and statistics."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

from elasticsearch import AuthorizationException, BadRequestError, Elasticsearch, NotFoundError

from slurp import __version__
from slurp.config import Config
from slurp.elastic import lifecycle
from slurp.elastic.client import error_details, missing_privilege
from slurp.elastic.days import SECONDS_PER_DAY, day_of_index, managed_day_indices
from slurp.elastic.features import Features, detect
from slurp.elastic.ingest_pipeline import PipelineAttachment, find_pipeline, put_pipeline
from slurp.elastic.mapping_updates import add_deletion_fields, missing_fields, put_mapping
from slurp.elastic.templates import (
    ACTORS_INDEX,
    DRIFT_INDEX,
    MANAGED_META,
    STATE_INDEX,
    STATS_INDEX,
    TRENDS_INDEX,
    Change,
    IndexOptions,
    Templates,
    asset,
    component_meta,
    day_mappings,
    index_template_meta,
    is_managed,
    managed_version,
    parse_version,
)
from slurp.errors import Exit, Fatal
from slurp.lexicons import Compiled, LexiconError, committed, compile, load, merge
from slurp.lexicons.mapping import count_fields

log = logging.getLogger(__name__)

# The indices besides daily indices, with the names of their assets.
_OWN_INDICES = {
    STATE_INDEX: "state",
    DRIFT_INDEX: "drift",
    STATS_INDEX: "stats",
    TRENDS_INDEX: "trends",
    ACTORS_INDEX: "actors",
}

# Without a retention, only this many past days get the fields of a new version.
_MAPPED_DAYS = 3


def load_lexicons(config: Config) -> Compiled:
    """Return the record types to map: the built-in ones and those of `--lexicons`.

    Raises Fatal if the files are invalid or cannot be combined with the built-in ones.
    """
    base = committed()
    if config.lexicons is None:
        return base
    try:
        extra = compile(load(config.lexicons), base=base)
        common_fields = count_fields(asset("events")["mappings"]["properties"])
        merged = merge(base, extra, other_fields=common_fields)
    except (LexiconError, OSError) as error:
        raise Fatal(f"--lexicons: {error}", Exit.USAGE) from None
    for warning in extra.warnings:
        log.warning("--lexicons: %s", warning)
    return merged


class Setup:
    """The setup for one `--index`. `run` is idempotent: it changes only missing or different resources."""

    def __init__(self, config: Config, compiled: Compiled, clock: Callable[[], float] = time.time) -> None:
        self._config = config
        self._index = config.index
        self._compiled = compiled
        self._clock = clock
        self._changes: dict[str, Change] = {}
        self.features = Features()
        # None if the setup, including the pipeline of daily indices, is not changed by this worker.
        self.attachment: PipelineAttachment | None = None

    def run(self, client: Elasticsearch) -> None:
        """Put all resources; with --no-setup only check that they exist.

        Raises the exceptions of the client, and Fatal if a privilege or, with --no-setup, a resource is
        missing.
        """
        self._run(client)
        add_deletion_fields(client, self._index, read_only=self._config.no_setup)

    def _run(self, client: Elasticsearch) -> None:
        try:
            self.features = detect(client)
        except AuthorizationException as error:
            self._check_without_privilege(client, error)
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
            self._check_without_privilege(client, error)
        else:
            self._report()

    def put_templates(self, client: Elasticsearch) -> None:
        """Put the templates again after they were deleted while the worker was running."""
        if self._config.no_setup:
            raise Fatal(
                f"index template {self._index!r} is missing: an administrator has to run --setup-only"
            )
        self._templates().put(client)
        if self.attachment is not None:
            self.attachment.apply(client)

    def _put(self, client: Elasticsearch) -> None:
        for name in _OWN_INDICES:
            try:
                self._note(f"index {name}", _put_own_index(client, name))
            except AuthorizationException as error:
                # Statistics are optional.
                if name != STATS_INDEX:
                    raise
                log.warning("%s is not changed: %s is missing", name, missing_privilege(error))
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
            attachment = PipelineAttachment(self._index)
            attachment.apply(client)
            self.attachment = attachment

    def _note(self, resource: str, change: Change) -> None:
        # A retried setup finds the resources unchanged that its first attempt has put.
        if change is not Change.UNCHANGED or resource not in self._changes:
            self._changes[resource] = change

    def _report(self) -> None:
        summary = []
        for change in Change:
            names = [name for name, done in self._changes.items() if done is change]
            if names:
                summary.append(f"{change.value}: {', '.join(names)}")
        log.info("setup: %s", "; ".join(summary))

    def _templates(self) -> Templates:
        config = self._config
        options = IndexOptions(config.shards, config.replicas, config.refresh, config.codec, config.max_disk)
        return Templates(self._index, options, self.features, self._compiled)

    def _add_new_fields(self, client: Elasticsearch) -> None:
        """Add the fields of a new version to the daily indices that may still receive documents."""
        mappings = day_mappings(self._compiled)
        retention = self._config.retention_days
        oldest = int(self._clock()) // SECONDS_PER_DAY - (_MAPPED_DAYS if retention is None else retention)
        for name, meta in managed_day_indices(client, self._index).items():
            day = day_of_index(self._index, name)
            if day is None or day < oldest or meta == mappings["_meta"]:
                continue
            if managed_version(meta) > parse_version(__version__):
                continue
            existing = mapping_of(client, name).get("properties", {})
            new_fields = missing_fields(mappings["properties"], existing)
            put_mapping(client, name, new_fields, mappings["_meta"])

    def _missing(self, client: Elasticsearch) -> Iterator[str]:
        """Yield a description of each problem with the existing setup."""
        yield from _problem(
            f"index template {self._index!r}",
            index_template_meta(client, self._index),
            must_be_managed=True,
        )
        for name in self._templates().components:
            yield from _problem(
                f"component template {name!r}", component_meta(client, name), must_be_managed=True
            )
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
                exists = index_exists(client, name)
            except AuthorizationException:
                if name != STATS_INDEX:
                    raise
                continue  # the first write of statistics reports the missing privilege
            if not exists:
                yield f"there is no index {name}"

    def _missing_unless_denied(
        self, resource: str, find: Callable[[], dict[str, Any] | None]
    ) -> Iterator[str]:
        try:
            found = find()
        except AuthorizationException as error:
            log.warning("%s is not checked: %s is missing", resource, missing_privilege(error))
            return
        yield from _problem(resource, None if found is None else found.get("_meta", {}))

    def _check_without_privilege(self, client: Elasticsearch, error: AuthorizationException) -> None:
        """Accept a missing privilege if the setup was done before; raise Fatal if it is incomplete."""
        privilege = missing_privilege(error)
        try:
            missing = list(self._missing(client))
        except AuthorizationException:
            missing = ["the privileges to check the setup are missing as well"]
        if missing:
            raise Fatal(
                f"{privilege} in Elasticsearch is missing, and {'; '.join(missing)}: grant it, or let an "
                "administrator run --setup-only once",
                Exit.USAGE,
            ) from None
        log.warning("the setup is not changed: %s is missing", privilege)


def _problem(resource: str, meta: Any, *, must_be_managed: bool = False) -> Iterator[str]:
    """Yield a description of the problem with a resource of the setup, if there is one.

    `meta` is its `_meta`, None if it does not exist.
    """
    if meta is None or (must_be_managed and not is_managed(meta)):
        yield f"there is no {resource}{' created by this program' if must_be_managed else ''}"
    elif is_managed(meta) and managed_version(meta) < parse_version(__version__):
        yield f"{resource} is of an older version"


def has_managed_template(client: Elasticsearch, index: str) -> bool:
    """Return whether the index template exists and was created by this program."""
    return is_managed(index_template_meta(client, index))


def create_index(client: Elasticsearch, name: str, **body: Any) -> bool:
    """Create an index; return False if it exists already."""
    try:
        client.indices.create(index=name, **body)
    except BadRequestError as error:
        if error_details(error)[0] == "resource_already_exists_exception":
            return False
        raise
    return True


def index_exists(client: Elasticsearch, name: str) -> bool:
    """Return whether an index, or an alias, of that name exists. Raises the exceptions of the client.

    Uses GET: a response to HEAD has no body, so a rejection could not be distinguished from that of a proxy.
    """
    try:
        client.indices.get(index=name, filter_path="*.settings.index.uuid")
    except NotFoundError:
        return False
    return True


def mapping_of(client: Elasticsearch, name: str) -> dict[str, Any]:
    """Return the mappings of an index, or of the index that an alias of that name points to."""
    found = client.indices.get_mapping(index=name)
    return next((body["mappings"] for body in found.values()), {})


def create_own_index(client: Elasticsearch, name: str) -> bool:
    """Create an index of this program, other than those for events, with its explicit mappings.

    Return False if it exists already. The index for accounts gets the mode `lookup`, for the `LOOKUP JOIN` of
    ES|QL, if the cluster knows it (Elasticsearch 8.17 and later).
    """
    body = _own_index_body(name)
    if name == ACTORS_INDEX:
        settings = {**body["settings"], "index.mode": "lookup"}
        try:
            return create_index(client, name, **{**body, "settings": settings})
        except BadRequestError as error:
            log.debug("%s is created without the mode lookup: %s", name, error)
    return create_index(client, name, **body)


def _own_index_body(name: str) -> dict[str, Any]:
    body = asset(_OWN_INDICES[name])
    body["mappings"]["_meta"] = MANAGED_META
    return body


def _put_own_index(client: Elasticsearch, name: str) -> Change:
    # Checked first, so that later starts do not need the privilege to create the index.
    try:
        meta = mapping_of(client, name).get("_meta")
    except NotFoundError:
        if create_own_index(client, name):
            return Change.CREATED
        meta = None
    if managed_version(meta) == parse_version(__version__):
        return Change.UNCHANGED
    if managed_version(meta) > parse_version(__version__):
        return Change.LEFT_ALONE
    mappings = _own_index_body(name)["mappings"]
    is_updated = put_mapping(client, name, mappings["properties"], mappings["_meta"])
    return Change.REPLACED if is_updated else Change.LEFT_ALONE
