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

_HOURS = "Adds up the lists of the 100 most frequent of each hour. The running one follows every 5 minutes."
_DAYS = "Adds up the lists of the 100 most frequent of each day (UTC)."
# The interval of the rows, and that of the buckets of a chart.
_INTERVALS = {"hour": "1h", "day": "1d"}
_NOTES = {"hour": _HOURS, "day": _DAYS}


def rows(measure: str, interval: str) -> Condition:
    """Select the rows of a measure."""
    return All(Is("interval", interval), Is("measure", measure))


def totals(interval: str, key: str) -> Condition:
    """Select the rows of one of the totals."""
    return All(rows("totals", interval), Is("key", key))


def number(title: str, interval: str, key: str, color: str = "") -> Metric:
    """Return a panel with a total of the time range."""
    return _metric(interval, key, total("count", title), color)


def most(title: str, interval: str, key: str, color: str = "") -> Metric:
    """Return a panel with the highest of the numbers of accounts, which cannot be added up."""
    note = f"The highest number of one {interval}; accounts of several cannot be added up."
    return _metric(interval, key, highest("count", title), color, note)


def over_time(
    title: str, interval: str, cases: dict[str, str], unit: str, style: str = "line", width: int | None = None
) -> Series:
    """Return a chart of totals; `cases` maps labels to their keys."""
    split = Cases({label: Is("key", key) for label, key in cases.items()}, "Totals")
    note = f"The running {interval} is not complete."
    return _series(title, interval, "totals", split, unit, style, note, width)


def top_over_time(
    title: str,
    interval: str,
    measure: str,
    label: str,
    unit: str,
    style: str = "area_stacked",
    *,
    field: str = "key",
    other: bool = False,
) -> Series:
    """Return a chart of the most frequent values of a measure, and with `other` of all others together."""
    return _series(title, interval, measure, Top(field, label, 8, other=other), unit, style, _NOTES[interval])


def posts(title: str, interval: str, measure: str, label: str, span: str = "") -> Table:
    """Return a table of posts with text and author."""
    return _table(
        title,
        interval,
        measure,
        _KEY,
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
        _KEY,
        (latest("author", "Account"), total("count", label), _OPEN),
        "Accounts without a confirmed name are shown with their DID.",
        span,
    )


def values(title: str, interval: str, measure: str, bucket: str, label: str, *, links: bool = False) -> Table:
    """Return a table of values by the accounts that used them."""
    return _table(
        title,
        interval,
        measure,
        Top("key", bucket, 50),
        (total("people", "Accounts"), total("count", label), *([_OPEN] if links else [])),
        "An account that used a value in two of them counts twice.",
    )


_OPEN = latest("url", "Link", width=80)
# The text or name in another column says what the key is.
_KEY = Top("key", "Key", 50, hidden=True)


def _metric(interval: str, key: str, measure: Measure, color: str, note: str = "") -> Metric:
    return Metric(
        title=measure.label,
        shows=EXISTING,
        view=View.TRENDS,
        where=totals(interval, key),
        measure=measure,
        color=color,
        note=note,
    )


def _series(
    title: str,
    interval: str,
    measure: str,
    split: Top | Cases,
    unit: str,
    style: str,
    note: str,
    width: int | None = None,
) -> Series:
    return Series(
        title=title,
        shows=EXISTING,
        view=View.TRENDS,
        width=width,
        where=rows(measure, interval),
        style=style,
        # By the middle of an hour or day, which is on the same date in most time zones.
        x=OverTime("middle", _INTERVALS[interval]),
        split=split,
        measures=(total("count", unit, has_gaps=True),),
        unit=unit,
        note=note,
    )


def _table(
    title: str,
    interval: str,
    measure: str,
    by: Top,
    measures: tuple[Measure, ...],
    note: str,
    span: str = "",
) -> Table:
    return Table(
        title=title,
        shows=EXISTING,
        view=View.TRENDS,
        where=rows(measure, interval),
        by=(by,),
        measures=measures,
        note=f"{_NOTES[interval]} {note}",
        span=span,
    )
