"""The templates of daily indices: their content, and the conditions under which they are put.

The index template `<index>` is composed of three managed component templates, `<index>@settings`,
`<index>@mappings` and `<index>@lexicons`, and the user's `<index>@custom`, which need not exist.

An index, a template or another resource is *managed* if this program created it, which its `_meta` shows.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from importlib.resources import files
from typing import Any

from elasticsearch import Elasticsearch, NotFoundError

from slurp import __version__
from slurp.elastic.analysis import analysis
from slurp.elastic.features import Features
from slurp.errors import Exit, Fatal
from slurp.lexicons import Compiled
from slurp.lexicons.mapping import MAX_FIELDS

log = logging.getLogger(__name__)

Json = dict[str, Any]

STATE_INDEX = "skeetslurper-state"
DRIFT_INDEX = "skeetslurper-drift"
STATS_INDEX = "skeetslurper-stats"
TRENDS_INDEX = "skeetslurper-trends"
ACTORS_INDEX = "skeetslurper-actors"

# The key in `_meta` that all managed resources have.
_OWNER = "skeetslurper"
MANAGED_META = {_OWNER: {"version": __version__}}
# The mappings in the request that creates a daily index: no dynamic fields, and managed, whatever template
# matches.
MINIMAL_DAY_MAPPINGS: Json = {"dynamic": False, "_meta": {_OWNER: {}}}

# Percent of deleted documents above which `only_expunge_deletes` merges a segment; the default is 10.
EXPUNGE_DELETES_ALLOWED = 5

# Above the priority of Elastic's built-in templates, below one that an administrator would use to override.
_PRIORITY = 300


class Change(Enum):
    """The result of the setup for one resource."""

    CREATED = "created"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"
    LEFT_ALONE = "left alone"


def put_if_changed(resource: str, existing: Json | None, body: Json, put: Callable[[], object]) -> Change:
    """Put a resource unless it exists in this form, or was created by the user or by a newer version.

    `resource` describes it for the log, `existing` is the existing body (None if there is none), `body` is
    the wanted one with MANAGED_META, and `put` sends it.
    """
    if existing is not None and is_foreign_or_newer(existing.get("_meta")):
        log.warning("%s was created by the user or by a newer version; not changing it", resource)
        return Change.LEFT_ALONE
    if existing is not None and {name: existing.get(name) for name in body} == body:
        return Change.UNCHANGED
    put()
    return Change.CREATED if existing is None else Change.REPLACED


@dataclass(frozen=True)
class IndexOptions:
    """The options of the user for daily indices."""

    shards: int = 1
    replicas: int | None = None
    """None lets the cluster choose 0 or 1."""
    refresh: float = 5.0
    """Seconds."""
    codec: str = "best_compression"
    max_disk: int | None = None
    """Bytes; None or 0 for no limit."""


class Templates:
    """The bodies for one `--index`, each with the program version and a hash of its content in `_meta`."""

    def __init__(self, index: str, options: IndexOptions, features: Features, lexicons: Compiled) -> None:
        self.index = index
        self.mappings = day_mappings(lexicons)
        base = asset("events")
        lexicon_body = dict(lexicons.component_template)
        self.components: dict[str, Json] = {
            f"{index}@settings": {
                # Without `default_pipeline`, which is added and removed by slurp/elastic/ingest_pipeline.py.
                "template": {"settings": {"index": _settings(index, base, options, features)}},
                "_meta": {},
            },
            f"{index}@mappings": {"template": {"mappings": _common_mappings(base)}, "_meta": {}},
            f"{index}@lexicons": {
                "template": lexicon_body["template"],
                "_meta": lexicon_body["_meta"][_OWNER],
            },
        }
        custom = f"{index}@custom"
        self.index_template: Json = {
            "index_patterns": [f"{index}-*"],
            "priority": _PRIORITY,
            "composed_of": [*self.components, custom],
            "ignore_missing_component_templates": [custom],
            "template": {"mappings": {"_meta": self.mappings["_meta"]}},
            # A bulk request for a deleted index is rejected, so that `DailyIndices` creates the index again.
            "allow_auto_create": False,
            "_meta": {},
        }
        for body in (*self.components.values(), self.index_template):
            body["_meta"] = {_OWNER: {**MANAGED_META[_OWNER], "hash": _hash(body), **body["_meta"]}}

    def put(self, client: Elasticsearch) -> dict[str, Change]:
        """Put the templates that are missing or differ; change none if one of them is of a newer version.

        Raises Fatal if a template of one of these names was not created by this program.
        """
        metas = {name: component_meta(client, name) for name in self.components}
        metas[self.index] = index_template_meta(client, self.index)
        for name, meta in metas.items():
            if meta is not None and not is_managed(meta):
                raise Fatal(
                    f"template {name!r} exists and was not created by this program: delete it or choose "
                    "another --index",
                    Exit.USAGE,
                )
        newer = {name for name, meta in metas.items() if managed_version(meta) > parse_version(__version__)}
        if newer:
            log.warning(
                "not changing the templates, which are of a newer version: %s", ", ".join(sorted(newer))
            )
            return dict.fromkeys(metas, Change.LEFT_ALONE)
        for name, body in self.components.items():
            if metas[name] != body["_meta"]:
                client.cluster.put_component_template(
                    name=name, template=body["template"], meta=body["_meta"]
                )
        if metas[self.index] != self.index_template["_meta"]:
            client.indices.put_index_template(name=self.index, **_client_parameters(self.index_template))
        bodies = {**self.components, self.index: self.index_template}
        return {
            name: Change.CREATED
            if meta is None
            else Change.UNCHANGED
            if meta == bodies[name]["_meta"]
            else Change.REPLACED
            for name, meta in metas.items()
        }


def max_segment_size(max_disk: int) -> int:
    """Return the largest segment in bytes that merges create for a `--max-disk` in bytes: at most 5 GB, which
    is the default of Elasticsearch."""
    return min(max_disk // 20, 5_000_000_000)


def _max_translog_size(max_disk: int) -> int:
    return min(max_disk // 20, 512_000_000)


def day_mappings(lexicons: Compiled) -> Json:
    """Return the complete mappings of a daily index, with `_meta`."""
    common = _common_mappings(asset("events"))
    merged = {**common, "properties": {**common["properties"], **lexicons.mapping["properties"]}}
    return {**merged, "_meta": {_OWNER: {**MANAGED_META[_OWNER], "hash": _hash(merged)}}}


def is_managed(meta: Any) -> bool:
    """Return whether a `_meta` shows that this program created the resource."""
    return isinstance(meta, dict) and _OWNER in meta


def is_from_template(meta: Any) -> bool:
    """Return whether the `_meta` of an index comes from the managed index template, which adds a hash."""
    return is_managed(meta) and isinstance(meta[_OWNER], dict) and "hash" in meta[_OWNER]


def managed_version(meta: Any) -> tuple[int, ...]:
    """Return the program version in a `_meta`; () if there is none, which compares as older than any."""
    managed = meta.get(_OWNER) if isinstance(meta, dict) else None
    return parse_version(str(managed.get("version", ""))) if isinstance(managed, dict) else ()


def is_foreign_or_newer(meta: Any) -> bool:
    """Return whether a resource must not be changed: not created by this program, or by a newer version."""
    return not is_managed(meta) or managed_version(meta) > parse_version(__version__)


def parse_version(version: str) -> tuple[int, ...]:
    """Return the first three numbers in a version."""
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def index_template_meta(client: Elasticsearch, name: str) -> Any:
    """Return the `_meta` of an index template; {} if it has none, None if the template does not exist."""
    try:
        found = client.indices.get_index_template(name=name)["index_templates"]
    except NotFoundError:
        return None
    return found[0]["index_template"].get("_meta", {}) if found else None


def effective_template(client: Elasticsearch, index: str) -> str | None:
    """Return the name of the index template that applies to a new index of this name, None if none does.

    The simulate API returns the settings and the overlapping templates, but not this name, and it requires
    more privileges.
    """
    matching = [
        (entry["index_template"].get("priority", 0), entry["name"])
        for entry in client.indices.get_index_template()["index_templates"]
        if any(_matches(pattern, index) for pattern in entry["index_template"]["index_patterns"])
    ]
    return str(max(matching)[1]) if matching else None


def asset(name: str) -> Json:
    """Return the content of a JSON file in `slurp/elastic/assets`."""
    text = (files("slurp.elastic") / "assets" / f"{name}.json").read_text(encoding="utf-8")
    loaded: Json = json.loads(text)
    return loaded


def _common_mappings(base: Mapping[str, Any]) -> Json:
    mappings: Json = base["mappings"]
    # The lexicons map the records; a disabled `record` here would override them.
    if mappings["properties"].get("record", {}).get("enabled") is False:
        properties = {name: body for name, body in mappings["properties"].items() if name != "record"}
        mappings = {**mappings, "properties": properties}
    return mappings


def _settings(index: str, base: Mapping[str, Any], options: IndexOptions, features: Features) -> Json:
    settings: Json = dict(base.get("settings", {}).get("index", {}))
    settings.pop("auto_expand_replicas", None)
    if options.replicas is None:
        settings["auto_expand_replicas"] = "0-1"
    else:
        settings["number_of_replicas"] = options.replicas
    settings |= {
        "number_of_shards": options.shards,
        "refresh_interval": f"{options.refresh * 1000:.0f}ms",
        "codec": options.codec,
        # A document must be on disk when it is acknowledged.
        "translog": {"durability": "request"},
        "mapping": {"total_fields": {"limit": MAX_FIELDS}},
        "merge": {"policy": {"expunge_deletes_allowed": EXPUNGE_DELETES_ALLOWED}},
    }
    if options.max_disk:
        # By default Elasticsearch caches the size of an index for ten seconds, lets the translog grow for a
        # minute, which is a gigabyte at full speed, and merges segments of up to 5 GB.
        settings["store"] = {"stats_refresh_interval": "500ms"}
        settings["translog"]["flush_threshold_size"] = f"{_max_translog_size(options.max_disk)}b"
        settings["merge"]["policy"]["max_merged_segment"] = f"{max_segment_size(options.max_disk)}b"
    if features.lifecycle:
        settings["lifecycle"] = {"name": index}
    if (text_analysis := analysis(features)) is not None:
        settings["analysis"] = text_analysis
    return settings


def _matches(pattern: str, index: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), index) is not None


def component_template(client: Elasticsearch, name: str) -> Json | None:
    """Return the body of a component template, None if it does not exist."""
    try:
        found = client.cluster.get_component_template(name=name)["component_templates"]
    except NotFoundError:
        return None
    return found[0]["component_template"] if found else None


def component_meta(client: Elasticsearch, name: str) -> Any:
    """Return the `_meta` of a component template; {} if it has none, None if the template does not exist."""
    found = component_template(client, name)
    return None if found is None else found.get("_meta", {})


def _client_parameters(body: Json) -> Json:
    """Return a body as parameters of the client, which calls `_meta` `meta`."""
    return {("meta" if name == "_meta" else name): value for name, value in body.items()}


def _hash(body: Any) -> str:
    return blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=8).hexdigest()
