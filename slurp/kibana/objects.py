"""Saved objects for Kibana's import, built from the descriptions of dashboards, searches and data views."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import orjson

from slurp.documents.existing import HIDDEN, REDACTED_AT
from slurp.kibana import lens
from slurp.kibana.conditions import All, Condition, Either, Has, Is, Not
from slurp.kibana.dashboards import DASHBOARDS
from slurp.kibana.data_views import DATA_VIEWS, DataView
from slurp.kibana.panels import (
    COLUMNS,
    Chart,
    Control,
    Dashboard,
    Documents,
    Panel,
    Search,
    Shows,
    View,
)

Json = dict[str, Any]

DEFAULT_INDEX = "bluesky-events"

# Without a version, Kibana imports an object as one of 7.x: layers and references are lost without an error.
_VERSIONS = {"index-pattern": "8.0.0", "search": "8.0.0", "dashboard": "8.9.0"}

# The first version of Kibana with links panels.
LINKS_VERSION = (8, 11)
# Height and width of the panel with links to the other dashboards.
_NAVIGATION = 4
_LINKS_WIDTH = 32
_INDEX_REFERENCE = "kibanaSavedObjectMeta.searchSourceJSON.index"


def build(index: str = DEFAULT_INDEX, space: str = "", *, has_links: bool = True) -> list[Json]:
    """Return data views, searches and dashboards for `--index` in a space of Kibana.

    `has_links` is whether Kibana has links panels, from `LINKS_VERSION` on. They mark the current
    dashboard and carry time range and filters to those like it; without them, the links are Markdown.

    Each object is `{type, id, attributes, references, typeMigrationVersion}`. Ids begin with the name of the
    index. Ids are unique over all spaces, so in a space other than the default one (`""`) they end with its
    name.
    """
    names = _Names(index, space)
    searches = {
        panel.search.name: panel.search
        for dashboard in DASHBOARDS
        for panel in dashboard.panels
        if isinstance(panel, Documents)
    }
    return [
        *(_data_view(data_view, names) for data_view in DATA_VIEWS),
        *(_search(search, names) for search in searches.values()),
        *(_dashboard(dashboard, names, has_links=has_links) for dashboard in DASHBOARDS),
    ]


def ndjson(objects: Iterable[Json]) -> bytes:
    """Return the objects as JSON lines, the format of `_import` and of the menu Saved Objects."""
    return b"".join(
        orjson.dumps(one, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE) for one in objects
    )


# Events by which a server only announces records that existed before.
_ANNOUNCED = (Is("commit.resync", True), Is("commit.bootstrap", True))
# The equivalent of `slurp.documents.existing.EXISTING`.
_GONE = (Has(REDACTED_AT), Is(HIDDEN, True))


def scope(view: View, shows: Shows, index: str) -> Condition:
    """Return the condition for the documents of a panel or a saved search.

    Events that announce existing records (resync, bootstrap) are excluded, and redacted and hidden documents
    where existing ones are shown. Documents of the other views must belong to `--index`.
    """
    if view is View.TRENDS:
        return All(Is("index", index), Not(Is(HIDDEN, True)))
    if view is not View.EVENTS:
        return Is("index", index)
    return Not(Either(*_ANNOUNCED, *(_GONE if shows is Shows.EXISTING else ())))


class _Names:
    """Ids and titles for one `--index` in one space."""

    def __init__(self, index: str, space: str) -> None:
        self.index = index
        self._suffix = f".{space}" if space else ""

    def of(self, name: str) -> str:
        return f"{self.index}-{name}{self._suffix}"

    def data_view(self, view: View) -> str:
        name = self.index if view is View.EVENTS else view.value
        return f"{name}{self._suffix}"

    def title(self, title: str) -> str:
        return title if self.index == DEFAULT_INDEX else f"{title} ({self.index})"


def _object(kind: str, id: str, attributes: Json, references: list[Json]) -> Json:
    return {
        "type": kind,
        "id": id,
        "attributes": attributes,
        "references": references,
        "typeMigrationVersion": _VERSIONS[kind],
    }


def _text(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _data_view(data_view: DataView, names: _Names) -> Json:
    events = data_view.view is View.EVENTS
    attributes = {
        "title": data_view.view.value.format(index=names.index),
        "name": names.title(data_view.name) if events else data_view.name,
        "timeFieldName": data_view.time_field,
        "fieldAttrs": _text({name: {"customLabel": label} for name, label in data_view.labels.items()}),
        "fieldFormatMap": _text(dict(data_view.formats)),
        "fields": "[]",
        "runtimeFieldMap": _text(
            {
                name: {"type": "keyword", "script": {"source": script}}
                for name, script in data_view.scripts.items()
            }
        ),
        "sourceFilters": "[]",
        "typeMeta": "{}",
        "allowHidden": False,
    }
    return _object("index-pattern", names.data_view(data_view.view), attributes, [])


def _search(search: Search, names: _Names) -> Json:
    where = All(scope(search.view, search.shows, names.index), search.where)
    widths = {name: {"width": width} for name, width in search.columns.items() if width}
    attributes = {
        "title": names.title(search.title),
        "description": "",
        "columns": list(search.columns),
        "sort": [[search.newest, "desc"]],
        "grid": {"columns": widths},
        "hideChart": False,
        "isTextBasedQuery": False,
        "timeRestore": False,
        "kibanaSavedObjectMeta": {
            "searchSourceJSON": _text(
                {
                    "query": {"query": where.kql, "language": "kuery"},
                    "filter": [],
                    "highlightAll": True,
                    "version": True,
                    "indexRefName": _INDEX_REFERENCE,
                }
            )
        },
    }
    reference = _reference(_INDEX_REFERENCE, "index-pattern", names.data_view(search.view))
    return _object("search", names.of(search.name), attributes, [reference])


def _dashboard(dashboard: Dashboard, names: _Names, *, has_links: bool) -> Json:
    panels, references = _navigation(dashboard, names, has_links=has_links)
    y = _NAVIGATION
    for row in dashboard.rows:
        x = 0
        for panel, width in zip(row.panels, row.widths(), strict=True):
            grid = {"x": x, "y": y, "w": width, "h": row.height}
            body, inner = _panel(panel, grid, names, dashboard.name)
            panels.append(body)
            references += inner
            x += width
        y += row.height
    references += [
        _reference(
            f"controlGroup_{control.field}:optionsListDataView",
            "index-pattern",
            names.data_view(control.view),
        )
        for control in dashboard.controls
    ]
    attributes = {
        "title": names.title(dashboard.title),
        "description": dashboard.description,
        "panelsJSON": _text(panels),
        "controlGroupInput": _controls(dashboard.controls),
        "optionsJSON": _text(
            {
                "useMargins": True,
                "syncColors": True,
                "syncCursor": True,
                "syncTooltips": True,
                "hidePanelTitles": False,
            }
        ),
        "timeRestore": True,
        "timeFrom": dashboard.span,
        "timeTo": "now",
        "refreshInterval": {"pause": False, "value": dashboard.refresh * 1000},
        "kibanaSavedObjectMeta": {
            "searchSourceJSON": _text({"query": {"query": "", "language": "kuery"}, "filter": []})
        },
        # Without a version the dashboard can be displayed but not saved.
        "version": 1,
    }
    return _object("dashboard", names.of(dashboard.name), attributes, references)


def _panel(panel: Panel, grid: Json, names: _Names, dashboard: str) -> tuple[Json, list[Json]]:
    """Return the panel, and its references for the dashboard: the same with the panel's id as prefix."""
    # Unique over all dashboards: on navigation, Kibana keeps a panel with the same id and its old content.
    id = f"{dashboard}-{_slug(panel.title)}"
    body: Json = {
        "panelIndex": id,
        "gridData": {**grid, "i": id},
        "title": panel.title,
    }
    config: Json = {"enhancements": {}}
    if panel.span:
        config["timeRange"] = {"from": panel.span, "to": "now"}
    if isinstance(panel, Documents):
        reference = f"panel_{id}"
        if panel.note:
            config["description"] = panel.note
        body |= {"type": "search", "embeddableConfig": config, "panelRefName": reference}
        return body, [_reference(f"{id}:{reference}", "search", names.of(panel.search.name))]
    if not isinstance(panel, Chart):
        raise TypeError(f"no saved object for {type(panel).__name__}")
    restriction = scope(panel.view, panel.shows, names.index)
    attributes = lens.attributes(panel, names.data_view(panel.view), restriction)
    body |= {"type": "lens", "embeddableConfig": {"attributes": attributes, **config}}
    return body, [{**one, "name": f"{id}:{one['name']}"} for one in attributes["references"]]


def _navigation(here: Dashboard, names: _Names, *, has_links: bool) -> tuple[list[Json], list[Json]]:
    """Return panels with links to all dashboards and the description of this one, and their references."""
    if not has_links:
        links = " · ".join(
            f"**{one.title}**" if one is here else f"[{one.title}](#/view/{names.of(one.name)})"
            for one in DASHBOARDS
        )
        return [_markdown(f"{here.name}-navigation", 0, COLUMNS, f"{links}\n\n{here.description}")], []
    id = f"{here.name}-links"
    links_panel = {
        "type": "links",
        "title": "",
        "panelIndex": id,
        "gridData": {"x": 0, "y": 0, "w": _LINKS_WIDTH, "h": _NAVIGATION, "i": id},
        "embeddableConfig": {
            "attributes": {
                "layout": "horizontal",
                "links": [_link(order, here, there) for order, there in enumerate(DASHBOARDS)],
            },
            "enhancements": {},
        },
    }
    about = _markdown(f"{here.name}-about", _LINKS_WIDTH, COLUMNS - _LINKS_WIDTH, here.description)
    references = [
        _reference(f"{id}:link_{one.name}_dashboard", "dashboard", names.of(one.name)) for one in DASHBOARDS
    ]
    return [links_panel, about], references


def _link(order: int, here: Dashboard, there: Dashboard) -> Json:
    return {
        "type": "dashboardLink",
        "id": there.name,
        "order": order,
        "label": there.title,
        "destinationRefName": f"link_{there.name}_dashboard",
        "options": {
            "openInNewTab": False,
            "useCurrentFilters": here.is_like(there),
            "useCurrentDateRange": here.is_like(there),
        },
    }


def _markdown(id: str, x: int, width: int, text: str) -> Json:
    return {
        "type": "visualization",
        "panelIndex": id,
        "gridData": {"x": x, "y": 0, "w": width, "h": _NAVIGATION, "i": id},
        "embeddableConfig": {
            "hidePanelTitles": True,
            "savedVis": {
                "id": "",
                "title": "",
                "description": "",
                "type": "markdown",
                "params": {"fontSize": 12, "openLinksInNewTab": False, "markdown": text},
                "uiState": {},
                "data": {
                    "aggs": [],
                    "searchSource": {"query": {"query": "", "language": "kuery"}, "filter": []},
                },
            },
            "enhancements": {},
        },
    }


def _controls(controls: Sequence[Control]) -> Json:
    panels = {
        control.field: {
            "type": "optionsListControl",
            "order": order,
            "grow": True,
            "width": "medium",
            "explicitInput": {
                "id": control.field,
                "fieldName": control.field,
                "title": control.title,
                "searchTechnique": "prefix",
                "selectedOptions": [],
                "enhancements": {},
            },
        }
        for order, control in enumerate(controls)
    }
    ignored = dict.fromkeys(("ignoreFilters", "ignoreQuery", "ignoreTimerange", "ignoreValidations"), False)
    return {
        "chainingSystem": "HIERARCHICAL",
        "controlStyle": "oneLine",
        "ignoreParentSettingsJSON": _text(ignored),
        "panelsJSON": _text(panels),
    }


def _reference(name: str, kind: str, id: str) -> Json:
    return {"name": name, "type": kind, "id": id}


def _slug(title: str) -> str:
    return "-".join(re.findall(r"[a-z0-9]+", title.lower()))


def panels_of(dashboard: Json) -> Iterator[Json]:
    """Yield the decoded panels of a dashboard object."""
    yield from orjson.loads(dashboard["attributes"]["panelsJSON"])
