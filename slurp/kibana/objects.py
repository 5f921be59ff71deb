"""The saved objects that Kibana gets, in the form in which it imports them."""

from __future__ import annotations

from typing import Any


def build(index: str, space: str = "") -> list[dict[str, Any]]:
    """Data views first, then searches, then dashboards: what is referred to precedes what refers to it."""
    # Ids are unique over all spaces.
    suffix = f"-{space}" if space else ""
    return [
        {
            "type": "index-pattern",
            "id": f"{index}{suffix}",
            "attributes": {
                "title": f"{index}-*",
                "name": "Bluesky events",
                "timeFieldName": "@timestamp",
            },
            "references": [],
            "typeMigrationVersion": "8.0.0",
        }
    ]
