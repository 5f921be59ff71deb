"""Small saved objects of each kind, for tests that import them."""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]


def example_objects(title: str = "first") -> list[Json]:
    """Return a data view, a search and two dashboards; `title` is the title of a panel in each dashboard."""

    def dashboard(name: str) -> Json:
        panels = [
            {"type": "lens", "panelIndex": "a", "title": f"{title} «ü»", "gridData": {"x": 0, "y": 0}},
            {"type": "lens", "panelIndex": "b", "title": "b"},
        ]
        return {
            "type": "dashboard",
            "id": f"view-{name}",
            "attributes": {
                "title": f"Dashboard {name}",
                "version": 1,
                "panelsJSON": json.dumps(panels),
                "kibanaSavedObjectMeta": {"searchSourceJSON": "{}"},
            },
            "references": [
                {"type": "index-pattern", "id": "view", "name": "b:layer"},
                {"type": "search", "id": "view-posts", "name": "a:panel_a"},
            ],
            "typeMigrationVersion": "8.9.0",
        }

    attributes = {
        "title": "view-*",
        "name": "Events",
        "timeFieldName": "@timestamp",
        "fieldAttrs": json.dumps({"did": {"customLabel": "Account"}}),
    }
    return [
        {"type": "index-pattern", "id": "view", "attributes": attributes, "typeMigrationVersion": "8.0.0"},
        {
            "type": "search",
            "id": "view-posts",
            "attributes": {"title": "Posts", "columns": ["text"]},
            "references": [{"type": "index-pattern", "id": "view", "name": "x"}],
            "typeMigrationVersion": "8.0.0",
        },
        dashboard("a"),
        dashboard("b"),
    ]
