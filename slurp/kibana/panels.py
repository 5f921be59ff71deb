"""The vocabulary for describing dashboards: measures, buckets, charts, rows.

From the description of a panel, `lens` builds Kibana's JSON, and `panel_queries` the aggregation that
Kibana sends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    TRENDS = "skeetslurper-trends"
    ACTORS = "skeetslurper-actors"


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
    width: int | None = None
    """Of the column of a table, in pixels; None for the rest of the width."""
    has_gaps: bool = False
    """No value, and not 0, for a time without documents."""

    @property
    def is_text(self) -> bool:
        """Whether it is a value of a document and not a number."""
        return self.operation == "last_value"


def count(label: str, where: Condition | None = None, per: str = "") -> Measure:
    return Measure("count", label, where=where, per=per)


def unique(field: str, label: str) -> Measure:
    return Measure("unique_count", label, field)


def percentile(percent: int, field: str, label: str) -> Measure:
    return Measure("percentile", label, field, percentile=percent)


def total(
    field: str, label: str, per: str = "", decimals: int | None = None, *, has_gaps: bool = False
) -> Measure:
    return Measure("sum", label, field, per=per, decimals=decimals, has_gaps=has_gaps)


def highest(field: str, label: str) -> Measure:
    return Measure("max", label, field)


def latest(field: str, label: str, where: Condition | None = None, width: int | None = None) -> Measure:
    """Return a measure for the value in the newest document for which `where` holds, by default those that
    have the field.
    """
    return Measure("last_value", label, field, where or Has(field), width=width)


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
    """Buckets over time of an `interval`, such as `1h`; with `auto`, Kibana chooses it by the displayed time
    range."""

    field: str = "@timestamp"
    interval: str = "auto"


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
    note: str = ""
    """What the panel counts, or why it may be empty; Kibana shows it at the title."""
    span: str = ""
    """The start of its own time range; that of the dashboard by default."""


@dataclass(frozen=True, kw_only=True)
class Chart(Panel):
    """A panel over documents of `view` for which `where` holds."""

    shows: Shows
    where: Condition = EVERYTHING
    view: View = View.EVENTS

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The aggregations of the panel."""
        raise NotImplementedError


@dataclass(frozen=True)
class Layer:
    """Nested buckets, outermost first, and the measures of the innermost bucket."""

    buckets: tuple[Bucket, ...]
    measures: tuple[Measure, ...]

    @property
    def order(self) -> int:
        """The position of the measure by which top values and tables are ordered: the first number."""
        return next(n for n, measure in enumerate(self.measures) if not measure.is_text)


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
    """Lines, bars or areas; `style` is the seriesType of Kibana, `unit` the title of the axis of values."""

    style: str
    measures: tuple[Measure, ...]
    unit: str
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
    """A table, ordered by its first number."""

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
class Control:
    """A list of the values of a field, at the top of a dashboard, to select from."""

    field: str
    title: str
    view: View = View.EVENTS


@dataclass(frozen=True)
class Dashboard:
    """A dashboard; `name` is the end of its id, `span` the start of its time range, `refresh` in seconds.

    All panels must have the fields of its `controls`: a panel without them would be empty.
    """

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]
    span: str
    refresh: int = 300
    controls: tuple[Control, ...] = ()

    def is_like(self, other: Dashboard) -> bool:
        """Return whether time range and filters make sense on the other dashboard too: same documents, same
        range."""
        return (self.charts[0].view, self.span) == (other.charts[0].view, other.span)

    @property
    def panels(self) -> list[Panel]:
        return [panel for row in self.rows for panel in row.panels]

    @property
    def charts(self) -> list[Chart]:
        return [panel for panel in self.panels if isinstance(panel, Chart)]
