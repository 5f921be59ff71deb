"""Comparison of saved objects by their content, independent of the serialization.

Saving an object in Kibana serializes the inner JSON again and reorders references; opening Discover counts
the popularity of fields. None of that is an edit.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

Json = dict[str, Any]


def digest(saved: Json) -> str:
    """Return a hash that is equal for two saved objects of the same content."""
    text = json.dumps(_normalize(saved), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _normalize(saved: Json) -> Json:
    """Return attributes and references of an object, without the metadata that Kibana adds."""
    attributes = _decode(saved.get("attributes") or {})
    if saved.get("type") == "index-pattern" and isinstance(attributes.get("fieldAttrs"), dict):
        attributes["fieldAttrs"] = _without_popularity(attributes["fieldAttrs"])
    return {
        # Kibana adds absent attributes with empty values: `"typeMeta": {}` is the same as none.
        "attributes": {name: value for name, value in attributes.items() if value},
        "references": _sorted(saved.get("references") or []),
    }


def _decode(value: Any) -> Any:
    """Return a value with the JSON within strings decoded, and references sorted."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value
    if isinstance(value, dict):
        decoded = {name: _decode(inner) for name, inner in value.items()}
        if isinstance(decoded.get("references"), list):
            decoded["references"] = _sorted(decoded["references"])
        return decoded
    if isinstance(value, list):
        return [_decode(inner) for inner in value]
    return value


def _sorted(references: list[Any]) -> list[Any]:
    return sorted(references, key=lambda one: json.dumps(one, sort_keys=True))


def _without_popularity(fields: Json) -> Json:
    kept = {
        name: {key: value for key, value in about.items() if key != "count"}
        for name, about in fields.items()
        if isinstance(about, dict)
    }
    return {name: about for name, about in kept.items() if about}
