"""The words in which dashboards are described: measures, buckets, charts, rows.

A description says which question a panel answers and from what. `lens` makes Kibana's JSON of it,
`check` the aggregation that Kibana will send, from the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from slurp.kibana.conditions import All, Condition, Has

EVERYTHING = All()

# Kibana's grid.
COLUMNS = 48


class View(Enum):
    """Which documents: the value is the index pattern, where {index} stands for `--index`."""

    EVENTS = "{index}-*"
    STATS = "skeetslurper-stats"
    DRIFT = "skeetslurper-drift"


@dataclass(frozen=True)
class Measure:
    """A number over documents; the label is what people read. `where` narrows this number alone."""

    operation: str
    label: str
    field: str = ""
    where: Condition | None = None
    per: str = ""
    """`s` or `m`: per second or minute, on a time axis."""
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


def latest(field: str, label: str) -> Measure:
    """The value in the newest document that has one."""
    return Measure("last_value", label, field, where=Has(field))


@dataclass(frozen=True)
class Top:
    """The most frequent values of a field, or with `in_order` its first ones in alphabetical order."""

    field: str
    label: str
    size: int = 10
    other: bool = False
    in_order: bool = False


@dataclass(frozen=True)
class OverTime:
    """Kibana chooses the interval by the range of time that is looked at."""

    field: str = "@timestamp"


@dataclass(frozen=True)
class Cases:
    """A bucket for each named condition."""

    cases: Mapping[str, Condition]
    label: str = "Cases"


Bucket = Top | OverTime | Cases


@dataclass(frozen=True, kw_only=True)
class Panel:
    question: str
    width: int | None = None
    """Columns; panels without one share what is left of their row."""


@dataclass(frozen=True, kw_only=True)
class Chart(Panel):
    """A panel over documents of `view` for which `where` holds."""

    where: Condition = EVERYTHING
    view: View = View.EVENTS

    @property
    def ignores_controls(self) -> bool:
        """A control over collections says nothing to documents that have none."""
        return self.view is not View.EVENTS

    @property
    def layers(self) -> tuple[Layer, ...]:
        """What Elasticsearch is asked."""
        raise NotImplementedError


@dataclass(frozen=True)
class Layer:
    """Buckets within buckets, the outermost first, and the measures of the innermost."""

    buckets: tuple[Bucket, ...]
    measures: tuple[Measure, ...]


def asked(chart: Chart, scope: Condition) -> tuple[Condition, tuple[Layer, ...]]:
    """Return the query of a panel and what it asks, of the documents in `scope`.

    A panel that ignores the controls loses its query as well (seen in Kibana 8.12), so there each measure
    has the condition.
    """
    where = All(scope, chart.where)
    if not chart.ignores_controls:
        return where, chart.layers
    layers = (
        replace(layer, measures=tuple(_narrowed(measure, where) for measure in layer.measures))
        for layer in chart.layers
    )
    return EVERYTHING, tuple(layers)


def _narrowed(measure: Measure, where: Condition) -> Measure:
    return replace(measure, where=All(where, measure.where or EVERYTHING))


@dataclass(frozen=True, kw_only=True)
class Metric(Chart):
    """One number; `trend` draws its course behind it."""

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
    """Lines, bars or areas; `style` is Kibana's seriesType."""

    style: str
    measures: tuple[Measure, ...]
    x: Bucket = field(default_factory=OverTime)
    split: Top | Cases | None = None

    @property
    def layers(self) -> tuple[Layer, ...]:
        return (Layer((*([self.split] if self.split else ()), self.x), self.measures),)


@dataclass(frozen=True, kw_only=True)
class Shares(Chart):
    """Parts of a whole; `shape` is Kibana's: donut or treemap (with up to two levels)."""

    by: tuple[Top, ...]
    measure: Measure
    shape: str = "donut"

    @property
    def layers(self) -> tuple[Layer, ...]:
        return (Layer(self.by, (self.measure,)),)


@dataclass(frozen=True, kw_only=True)
class Cloud(Chart):
    """Words, the larger the more frequent. More than 12, or in little room, Kibana leaves some out."""

    by: Top
    measure: Measure

    @property
    def layers(self) -> tuple[Layer, ...]:
        return (Layer((self.by,), (self.measure,)),)


@dataclass(frozen=True, kw_only=True)
class Table(Chart):
    """Sorted by the first measure."""

    by: tuple[Top, ...]
    measures: tuple[Measure, ...]

    @property
    def layers(self) -> tuple[Layer, ...]:
        return (Layer(self.by, self.measures),)


@dataclass(frozen=True, kw_only=True)
class Heatmap(Chart):
    x: Bucket
    y: Top
    measure: Measure

    @property
    def layers(self) -> tuple[Layer, ...]:
        return (Layer((self.y, self.x), (self.measure,)),)


@dataclass(frozen=True, kw_only=True)
class Documents(Panel):
    """The newest documents of a saved search, which Discover opens as well."""

    search: Search


@dataclass(frozen=True)
class Search:
    """A saved search; `name` is the end of its id. Widths of columns are in pixels."""

    name: str
    title: str
    columns: Mapping[str, int | None]
    where: Condition
    view: View = View.EVENTS
    newest: str = "@timestamp"


@dataclass(frozen=True)
class Row:
    """Panels side by side; a unit of height is 20 pixels."""

    height: int
    panels: tuple[Panel, ...]

    def __init__(self, height: int, *panels: Panel) -> None:
        object.__setattr__(self, "height", height)
        object.__setattr__(self, "panels", panels)

    def widths(self) -> list[int]:
        """In columns; raises ValueError when the row does not fill the grid."""
        free = COLUMNS - sum(panel.width or 0 for panel in self.panels)
        sharing = [panel for panel in self.panels if panel.width is None]
        if free < 0 or (free % len(sharing) if sharing else free):
            raise ValueError(f"{[panel.question for panel in self.panels]} do not fill {COLUMNS} columns")
        return [panel.width or free // len(sharing) for panel in self.panels]


@dataclass(frozen=True)
class Dashboard:
    """`name` is the end of its id, `span` how far it looks back at first, `refresh` in seconds."""

    name: str
    title: str
    question: str
    rows: tuple[Row, ...]
    span: str
    refresh: int

    @property
    def panels(self) -> list[Panel]:
        return [panel for row in self.rows for panel in row.panels]

    @property
    def charts(self) -> list[Chart]:
        return [panel for panel in self.panels if isinstance(panel, Chart)]
