"""The vocabulary for describing dashboards: measures, buckets, charts, rows.

From the description of a panel, `lens` builds Kibana's JSON, and `panel_queries` the aggregation that
Kibana sends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from slurp.kibana.conditions import All, Condition, Has

EVERYTHING = All()

# The width of Kibana's grid.
COLUMNS = 48


class View(Enum):
    """The documents of a panel; the value is the index pattern, in which {index} stands for `--index`."""

    EVENTS = "{index}-*"
    STATS = "skeetslurper-stats"
    DRIFT = "skeetslurper-drift"


class Shows(Enum):
    """What a panel or a saved search shows. Each must declare it, because the query depends on it."""

    EXISTING = "existing"
    """Content, or counts of what exists: without redacted and hidden documents."""
    ACTIVITY = "activity"
    """Counts of events or figures of the worker, without content: with all documents."""


EXISTING, ACTIVITY = Shows.EXISTING, Shows.ACTIVITY


@dataclass(frozen=True)
class Measure:
    """A metric aggregation with its label; `where` restricts the documents of this measure alone."""

    operation: str
    label: str
    field: str = ""
    where: Condition | None = None
    per: str = ""
    """`s` or `m`: normalize to a second or minute, on a time axis."""
    percentile: int = 0
    decimals: int | None = None


def count(label: str, where: Condition | None = None, per: str = "") -> Measure:
    return Measure("count", label, where=where, per=per)


def unique(field: str, label: str) -> Measure:
    return Measure("unique_count", label, field)


def percentile(percent: int, field: str, label: str) -> Measure:
    return Measure("percentile", label, field, percentile=percent)


def total(field: str, label: str, per: str = "", decimals: int | None = None) -> Measure:
    return Measure("sum", label, field, per=per, decimals=decimals)


def highest(field: str, label: str) -> Measure:
    return Measure("max", label, field)


def latest(field: str, label: str, where: Condition | None = None) -> Measure:
    """Return a measure for the value in the newest document for which `where` holds, by default those that
    have the field.
    """
    return Measure("last_value", label, field, where=where or Has(field))


@dataclass(frozen=True)
class Top:
    """Buckets for the most frequent values of a field, or with `in_order` for the alphabetically first."""

    field: str
    label: str
    size: int = 10
    other: bool = False
    in_order: bool = False
    hidden: bool = False
    """Not shown in a table, which has the same in another column."""


@dataclass(frozen=True)
class OverTime:
    """Buckets over time; Kibana chooses the interval by the displayed time range."""

    field: str = "@timestamp"


@dataclass(frozen=True)
class Cases:
    """A bucket for each named condition."""

    cases: Mapping[str, Condition]
    label: str = "Cases"


Bucket = Top | OverTime | Cases


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A panel of a dashboard."""

    title: str
    width: int | None = None
    """In columns of the grid; panels without a width share the rest of their row."""


@dataclass(frozen=True, kw_only=True)
class Chart(Panel):
    """A panel over documents of `view` for which `where` holds."""

    shows: Shows
    where: Condition = EVERYTHING
    view: View = View.EVENTS

    @property
    def ignores_controls(self) -> bool:
        """The controls filter by fields that only events have."""
        return self.view is not View.EVENTS

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The aggregations of the panel."""
        raise NotImplementedError


@dataclass(frozen=True)
class Layer:
    """Nested buckets, outermost first, and the measures of the innermost bucket."""

    buckets: tuple[Bucket, ...]
    measures: tuple[Measure, ...]


def query_and_layers(chart: Chart, scope: Condition) -> tuple[Condition, tuple[Layer, ...]]:
    """Return the query of a panel and its layers, restricted to the documents in `scope`.

    Kibana also drops the query of a panel that ignores the controls (seen in 8.12). There each measure gets
    the condition instead.
    """
    where = All(scope, chart.where)
    if not chart.ignores_controls:
        return where, chart.layers
    layers = (
        replace(layer, measures=tuple(_restricted(measure, where) for measure in layer.measures))
        for layer in chart.layers
    )
    return EVERYTHING, tuple(layers)


def _restricted(measure: Measure, where: Condition) -> Measure:
    return replace(measure, where=All(where, measure.where or EVERYTHING))


@dataclass(frozen=True, kw_only=True)
class Metric(Chart):
    """A single number; `trend` draws its time series in the background."""

    measure: Measure
    subtitle: str = ""
    color: str = ""
    trend: bool = False

    @property
    def layers(self) -> tuple[Layer, ...]:
        main = Layer((), (self.measure,))
        return (main, Layer((OverTime(),), (self.measure,))) if self.trend else (main,)


@dataclass(frozen=True, kw_only=True)
class Series(Chart):
    """Lines, bars or areas; `style` is the seriesType of Kibana."""

    style: str
    measures: tuple[Measure, ...]
    x: Bucket = field(default_factory=OverTime)
    split: Top | Cases | None = None

    @property
    def layers(self) -> tuple[Layer, ...]:
        return (Layer((*([self.split] if self.split else ()), self.x), self.measures),)


@dataclass(frozen=True, kw_only=True)
class Shares(Chart):
    """Shares of a total; `shape` is that of Kibana: donut, or treemap with up to two levels."""

    by: tuple[Top, ...]
    measure: Measure
    shape: str = "donut"

    @property
    def layers(self) -> tuple[Layer, ...]:
        return (Layer(self.by, (self.measure,)),)


@dataclass(frozen=True, kw_only=True)
class Cloud(Chart):
    """A tag cloud. Kibana omits tags if there are more than 12 or the panel is small."""

    by: Top
    measure: Measure

    @property
    def layers(self) -> tuple[Layer, ...]:
        return (Layer((self.by,), (self.measure,)),)


@dataclass(frozen=True, kw_only=True)
class Table(Chart):
    """A table, sorted by the first measure."""

    by: tuple[Top, ...]
    measures: tuple[Measure, ...]

    @property
    def layers(self) -> tuple[Layer, ...]:
        return (Layer(self.by, self.measures),)


@dataclass(frozen=True, kw_only=True)
class Heatmap(Chart):
    """A heat map of one measure."""

    x: Bucket
    y: Top
    measure: Measure

    @property
    def layers(self) -> tuple[Layer, ...]:
        return (Layer((self.y, self.x), (self.measure,)),)


@dataclass(frozen=True, kw_only=True)
class Documents(Panel):
    """The newest documents of a saved search. Discover can open it as well."""

    search: Search


@dataclass(frozen=True)
class Search:
    """A saved search; `name` is the end of its id. `columns` maps fields to widths in pixels, or to None."""

    name: str
    title: str
    columns: Mapping[str, int | None]
    shows: Shows
    where: Condition
    view: View = View.EVENTS
    newest: str = "@timestamp"


@dataclass(frozen=True)
class Row:
    """Panels side by side; `height` is in units of 20 pixels."""

    height: int
    panels: tuple[Panel, ...]

    def __init__(self, height: int, *panels: Panel) -> None:
        object.__setattr__(self, "height", height)
        object.__setattr__(self, "panels", panels)

    def widths(self) -> list[int]:
        """Return the widths of the panels in columns. Raises ValueError if the row does not fill the grid."""
        free = COLUMNS - sum(panel.width or 0 for panel in self.panels)
        sharing = [panel for panel in self.panels if panel.width is None]
        if free < 0 or (free % len(sharing) if sharing else free):
            raise ValueError(f"{[panel.title for panel in self.panels]} do not fill {COLUMNS} columns")
        return [panel.width or free // len(sharing) for panel in self.panels]


@dataclass(frozen=True)
class Dashboard:
    """A dashboard; `name` is the end of its id, `span` the start of its time range, `refresh` in seconds."""

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]
    span: str
    refresh: int

    @property
    def panels(self) -> list[Panel]:
        return [panel for row in self.rows for panel in row.panels]

    @property
    def charts(self) -> list[Chart]:
        return [panel for panel in self.panels if isinstance(panel, Chart)]
