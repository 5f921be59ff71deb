"""The templates that day indices are made from: what they hold, and when they are put.

Three component templates of ours, `<index>@settings`, `<index>@mappings` and `<index>@lexicons`, one
of the user's, `<index>@custom`, which need not exist, and the index template `<index>` over them.
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
from slurp.elastic.features import Features
from slurp.errors import Exit, Fatal
from slurp.lexicons import Compiled
from slurp.lexicons.mapping import MAX_FIELDS

log = logging.getLogger(__name__)

Json = dict[str, Any]

STATE_INDEX = "skeetslurper-state"
DRIFT_INDEX = "skeetslurper-drift"
STATS_INDEX = "skeetslurper-stats"

# Ours carry this in `_meta`: without it, an index or template is somebody else's.
_OWNER = "skeetslurper"
MARK = {_OWNER: {"version": __version__}}
# What a day index is asked for at its creation: closed and known as ours, whatever template it meets.
DAY_AT_LEAST: Json = {"dynamic": False, "_meta": {_OWNER: {}}}

# Above the defaults of Elastic's own templates, below what an administrator would use to override.
_PRIORITY = 300

# No plugin: these filters come with every full distribution.
_ANALYSIS = {
    "analyzer": {
        "default": {
            "type": "custom",
            "tokenizer": "standard",
            "filter": ["cjk_width", "lowercase", "cjk_bigram", "asciifolding"],
        }
    }
}


class Change(Enum):
    """What a start made of a part of the set-up."""

    CREATED = "created"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"
    LEFT_ALONE = "left alone"


def put_part(part: str, there: Json | None, body: Json, put: Callable[[], object]) -> Change:
    """Put a part of the set-up unless it is as wanted; what others made, or a newer version, is left alone.

    `there` is what has its name, None where there is nothing; `body` is what is wanted, with our `_meta`.
    """
    if there is not None and belongs_to_others(there.get("_meta")):
        log.warning("%s is of a newer version or not ours, leaving it alone", part)
        return Change.LEFT_ALONE
    if there is not None and {name: there.get(name) for name in body} == body:
        return Change.UNCHANGED
    put()
    return Change.CREATED if there is None else Change.REPLACED


@dataclass(frozen=True)
class Layout:
    """What the user may choose about day indices. `replicas` None lets the cluster choose 0 or 1;
    `max_disk` is in bytes, None or 0 without a bound."""

    shards: int = 1
    replicas: int | None = None
    refresh: float = 5.0
    codec: str = "default"
    max_disk: int | None = None


class Templates:
    """The bodies for one `--index`, each with our version and a hash of its content in `_meta`."""

    def __init__(self, index: str, layout: Layout, features: Features, lexicons: Compiled) -> None:
        self.index = index
        self.mappings = day_mappings(lexicons)
        base = asset("events")
        lexicon_body = dict(lexicons.component_template)
        self.components: dict[str, Json] = {
            f"{index}@settings": {
                # Without `default_pipeline`, which comes and goes: see slurp/elastic/ingest_pipeline.py.
                "template": {"settings": {"index": _settings(index, base, layout, features)}},
                "_meta": {},
            },
            f"{index}@mappings": {"template": {"mappings": _own_mappings(base)}, "_meta": {}},
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
            # A bulk into a day that somebody has deleted is refused, and `DailyIndices` makes the day again.
            "allow_auto_create": False,
            "_meta": {},
        }
        for body in (*self.components.values(), self.index_template):
            body["_meta"] = {_OWNER: {**MARK[_OWNER], "hash": _hash(body), **body["_meta"]}}

    def put(self, client: Elasticsearch) -> dict[str, Change]:
        """Put what is missing or differs, unless a newer version's are there: then all are left alone.

        Raises Fatal for a template of somebody else under one of our names.
        """
        there = {name: component_meta(client, name) for name in self.components}
        there[self.index] = index_template_meta(client, self.index)
        for name, meta in there.items():
            if meta is not None and not is_ours(meta):
                raise Fatal(
                    f"template {name!r} exists and was not made by us: delete it or choose another --index",
                    Exit.USAGE,
                )
        newer = {name for name, meta in there.items() if version_of(meta) > numbers(__version__)}
        if newer:
            log.warning(
                "the templates of a newer version are there (%s), leaving them alone",
                ", ".join(sorted(newer)),
            )
            return dict.fromkeys(there, Change.LEFT_ALONE)
        for name, body in self.components.items():
            if there[name] != body["_meta"]:
                client.cluster.put_component_template(
                    name=name, template=body["template"], meta=body["_meta"]
                )
        if there[self.index] != self.index_template["_meta"]:
            client.indices.put_index_template(name=self.index, **_parameters(self.index_template))
        wanted = {**self.components, self.index: self.index_template}
        return {
            name: Change.CREATED
            if meta is None
            else Change.UNCHANGED
            if meta == wanted[name]["_meta"]
            else Change.REPLACED
            for name, meta in there.items()
        }


def segment_limit(max_disk: int) -> int:
    """Return the bytes above which merges make no segment, for a budget in bytes: at most the default."""
    return min(max_disk // 20, 5_000_000_000)


def _translog_limit(max_disk: int) -> int:
    return min(max_disk // 20, 512_000_000)


def day_mappings(lexicons: Compiled) -> Json:
    """Everything that a day index maps, with the mark."""
    own = _own_mappings(asset("events"))
    merged = {**own, "properties": {**own["properties"], **lexicons.mapping["properties"]}}
    return {**merged, "_meta": {_OWNER: {**MARK[_OWNER], "hash": _hash(merged)}}}


def is_ours(meta: Any) -> bool:
    return isinstance(meta, dict) and _OWNER in meta


def is_of_our_template(meta: Any) -> bool:
    """The mark of an index that our template went into: only the template's has a hash."""
    return is_ours(meta) and isinstance(meta[_OWNER], dict) and "hash" in meta[_OWNER]


def version_of(meta: Any) -> tuple[int, ...]:
    """The version in our mark; () where there is none, which is older than any."""
    mark = meta.get(_OWNER) if isinstance(meta, dict) else None
    return numbers(str(mark.get("version", ""))) if isinstance(mark, dict) else ()


def belongs_to_others(meta: Any) -> bool:
    """Whether something under one of our names was not created by this program, or by a newer version."""
    return not is_ours(meta) or version_of(meta) > numbers(__version__)


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def index_template_meta(client: Elasticsearch, name: str) -> Any:
    """`_meta` of an index template; {} where it has none, None where there is no such template."""
    try:
        found = client.indices.get_index_template(name=name)["index_templates"]
    except NotFoundError:
        return None
    return found[0]["index_template"].get("_meta", {}) if found else None


def winner_for(client: Elasticsearch, index: str) -> str | None:
    """The index template that an index of this name is made from.

    Simulating it would tell what it gets and the losers, but not the winner, and takes more rights.
    """
    found = [
        (entry["index_template"].get("priority", 0), entry["name"])
        for entry in client.indices.get_index_template()["index_templates"]
        if any(_matches(pattern, index) for pattern in entry["index_template"]["index_patterns"])
    ]
    return str(max(found)[1]) if found else None


def asset(name: str) -> Json:
    """A JSON file of `slurp/elastic/assets`."""
    text = (files("slurp.elastic") / "assets" / f"{name}.json").read_text(encoding="utf-8")
    loaded: Json = json.loads(text)
    return loaded


def _own_mappings(base: Mapping[str, Any]) -> Json:
    mappings: Json = base["mappings"]
    # Records are mapped by the lexicons; a closed `record` here would win over them.
    if mappings["properties"].get("record", {}).get("enabled") is False:
        properties = {name: body for name, body in mappings["properties"].items() if name != "record"}
        mappings = {**mappings, "properties": properties}
    return mappings


def _settings(index: str, base: Mapping[str, Any], layout: Layout, features: Features) -> Json:
    settings: Json = dict(base.get("settings", {}).get("index", {}))
    settings.pop("auto_expand_replicas", None)
    if layout.replicas is None:
        settings["auto_expand_replicas"] = "0-1"
    else:
        settings["number_of_replicas"] = layout.replicas
    settings |= {
        "number_of_shards": layout.shards,
        "refresh_interval": f"{layout.refresh * 1000:.0f}ms",
        "codec": layout.codec,
        # An acknowledgement must mean disk.
        "translog": {"durability": "request"},
        "mapping": {"total_fields": {"limit": MAX_FIELDS}},
    }
    if layout.max_disk:
        # By default Elasticsearch remembers the size for ten seconds, lets the translog grow for a minute,
        # which is a gigabyte at full speed, and merges up to 5 GB at once.
        settings["store"] = {"stats_refresh_interval": "500ms"}
        settings["translog"]["flush_threshold_size"] = f"{_translog_limit(layout.max_disk)}b"
        settings["merge"] = {"policy": {"max_merged_segment": f"{segment_limit(layout.max_disk)}b"}}
    if features.lifecycle:
        settings["lifecycle"] = {"name": index}
    if features.folding:
        settings["analysis"] = _ANALYSIS
    return settings


def _matches(pattern: str, index: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), index) is not None


def component_template(client: Elasticsearch, name: str) -> Json | None:
    """The body of a component template; None where there is none of that name."""
    try:
        found = client.cluster.get_component_template(name=name)["component_templates"]
    except NotFoundError:
        return None
    return found[0]["component_template"] if found else None


def component_meta(client: Elasticsearch, name: str) -> Any:
    """`_meta` of a component template; {} where it has none, None where there is no such template."""
    found = component_template(client, name)
    return None if found is None else found.get("_meta", {})


def _parameters(body: Json) -> Json:
    """The client calls `_meta` `meta`."""
    return {("meta" if name == "_meta" else name): value for name, value in body.items()}


def _hash(body: Any) -> str:
    return blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=8).hexdigest()
