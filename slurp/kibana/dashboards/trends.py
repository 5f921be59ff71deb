"""Panels over the hours and days of `skeetslurper-trends`."""

from __future__ import annotations

from slurp.kibana.conditions import All, Condition, Is
from slurp.kibana.panels import (
    EXISTING,
    Cases,
    Measure,
    Metric,
    OverTime,
    Series,
    Table,
    Top,
    View,
    highest,
    latest,
    total,
)

HOURS = "Adds up the lists of the 100 most frequent of each hour. The running one follows every 5 minutes."
DAYS = "Adds up the lists of the 100 most frequent of each day (UTC)."
# The interval of the rows, and that of the buckets of a chart.
_INTERVALS = {"hour": "1h", "day": "1d"}
_NOTES = {"hour": HOURS, "day": DAYS}


def axis(interval: str) -> OverTime:
    """Return the axis of hours or days: by their middle, which is on the same date in most time zones."""
    return OverTime("middle", _INTERVALS[interval])


def rows(measure: str, interval: str) -> Condition:
    """Select the rows of a measure."""
    return All(Is("interval", interval), Is("measure", measure))


def totals(interval: str, key: str) -> Condition:
    """Select the rows of one of the totals."""
    return All(rows("totals", interval), Is("key", key))


def number(title: str, interval: str, key: str, color: str = "") -> Metric:
    """Return a panel with a total of the time range."""
    return Metric(
        title=title,
        shows=EXISTING,
        view=View.TRENDS,
        where=totals(interval, key),
        measure=total("count", title),
        color=color,
    )


def most(title: str, interval: str, key: str, color: str = "") -> Metric:
    """Return a panel with the highest of the numbers of accounts, which cannot be added up."""
    return Metric(
        title=title,
        shows=EXISTING,
        view=View.TRENDS,
        where=totals(interval, key),
        measure=highest("count", title),
        color=color,
        note=f"The highest number of one {interval}; accounts of several cannot be added up.",
    )


def over_time(
    title: str, interval: str, cases: dict[str, str], unit: str, style: str = "line", width: int | None = None
) -> Series:
    """Return a chart of totals; `cases` maps labels to their keys."""
    return Series(
        title=title,
        shows=EXISTING,
        view=View.TRENDS,
        width=width,
        where=rows("totals", interval),
        style=style,
        x=axis(interval),
        split=Cases({label: Is("key", key) for label, key in cases.items()}, "Totals"),
        measures=(total("count", unit, has_gaps=True),),
        unit=unit,
        note=f"The running {interval} is not complete.",
    )


def top_over_time(
    title: str,
    interval: str,
    measure: str,
    label: str,
    unit: str,
    style: str = "area_stacked",
    *,
    other: bool = False,
) -> Series:
    """Return a chart of the most frequent values of a measure, and with `other` of all others together."""
    return Series(
        title=title,
        shows=EXISTING,
        view=View.TRENDS,
        where=rows(measure, interval),
        style=style,
        x=axis(interval),
        split=Top("key", label, 8, other=other),
        measures=(total("count", unit, has_gaps=True),),
        unit=unit,
        note=_NOTES[interval],
    )


def posts(title: str, interval: str, measure: str, label: str, span: str = "") -> Table:
    """Return a table of posts with text and author."""
    return _table(
        title,
        interval,
        measure,
        (latest("text", "Text"), latest("author", "Author", width=230), total("count", label), _OPEN),
        "The text is missing if neither the index nor the AppView has the post.",
        span,
    )


def people(title: str, interval: str, measure: str, label: str, span: str = "") -> Table:
    """Return a table of accounts with their names."""
    return _table(
        title,
        interval,
        measure,
        (latest("author", "Account"), total("count", label), _OPEN),
        "Accounts without a confirmed name are shown with their DID.",
        span,
    )


def values(title: str, interval: str, measure: str, bucket: str, label: str, *, links: bool = False) -> Table:
    """Return a table of values by the accounts that used them."""
    measures: tuple[Measure, ...] = (total("people", "Accounts"), total("count", label))
    where = rows(measure, interval)
    return Table(
        title=title,
        shows=EXISTING,
        view=View.TRENDS,
        where=where,
        by=(Top("key", bucket, 50),),
        measures=(*measures, _OPEN) if links else measures,
        note=f"{_NOTES[interval]} An account that used a value in two of them counts twice.",
    )


_OPEN = latest("url", "Link", width=80)


def _table(
    title: str, interval: str, measure: str, measures: tuple[Measure, ...], note: str, span: str
) -> Table:
    return Table(
        title=title,
        shows=EXISTING,
        view=View.TRENDS,
        where=rows(measure, interval),
        by=(Top("key", "Key", 50, hidden=True),),
        measures=measures,
        note=f"{_NOTES[interval]} {note}",
        span=span,
    )
