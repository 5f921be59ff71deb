"""Whether two versions of a saved object say the same, however they are written down.

A save in Kibana writes the inner JSON anew and puts references in another order; opening Discover counts
how popular fields are. None of that is an edit.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

Json = dict[str, Any]


def digest(saved: Json) -> str:
    """Equal for two saved objects that say the same."""
    text = json.dumps(normalised(saved), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def normalised(saved: Json) -> Json:
    """What an object says: its attributes and references, without anything that Kibana keeps about it."""
    attributes = _decoded(saved.get("attributes") or {})
    if saved.get("type") == "index-pattern" and isinstance(attributes.get("fieldAttrs"), dict):
        attributes["fieldAttrs"] = _without_popularity(attributes["fieldAttrs"])
    return {
        # Kibana fills in what was left out: `"typeMeta": {}` is as good as none.
        "attributes": {name: value for name, value in attributes.items() if value},
        "references": _in_order(saved.get("references") or []),
    }


def _decoded(value: Any) -> Any:
    """A value with the JSON in its strings decoded, and references in an order of ours."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value
    if isinstance(value, dict):
        decoded = {name: _decoded(inner) for name, inner in value.items()}
        if isinstance(decoded.get("references"), list):
            decoded["references"] = _in_order(decoded["references"])
        return decoded
    if isinstance(value, list):
        return [_decoded(inner) for inner in value]
    return value


def _in_order(references: list[Any]) -> list[Any]:
    return sorted(references, key=lambda one: json.dumps(one, sort_keys=True))


def _without_popularity(fields: Json) -> Json:
    kept = {
        name: {key: value for key, value in about.items() if key != "count"}
        for name, about in fields.items()
        if isinstance(about, dict)
    }
    return {name: about for name, about in kept.items() if about}
