"""Lines over the last minutes, as the numbers of an SVG path."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

# The plot is stretched to the room there is; words stand beside it.
WIDTH, HEIGHT = 600, 100


class Chart(NamedTuple):
    """`lines` and `areas` are paths in a box of WIDTH × HEIGHT; `top` is the value at its upper edge."""

    top: float
    lines: tuple[str, ...]
    areas: tuple[str, ...]


def chart(ago: Sequence[float], series: Sequence[Sequence[float | None]], span: float, least: float) -> Chart:
    """Values at times `ago` (seconds, the oldest first) within the last `span` seconds; the scale goes to
    `least` or more. A line is broken where a value is None."""
    highest = max((value for values in series for value in values if value is not None), default=0.0)
    top = nice(max(highest, least))
    runs = [_runs(ago, values, span, top) for values in series]
    return Chart(
        top,
        tuple("".join(map(_line, one)) for one in runs),
        tuple("".join(map(_area, one)) for one in runs),
    )


def nice(value: float) -> float:
    """The next 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * (1 - 1e-9))


_Run = list[tuple[float, float]]


def _runs(ago: Sequence[float], values: Sequence[float | None], span: float, top: float) -> list[_Run]:
    runs: list[_Run] = [[]]
    for when, value in zip(ago, values, strict=True):
        if value is None:
            runs.append([])
        else:
            x = WIDTH * (1 - min(when, span) / span)
            runs[-1].append((x, HEIGHT * (1 - min(max(value, 0.0), top) / top)))
    return [run for run in runs if len(run) > 1]


def _line(run: _Run) -> str:
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in run)


def _area(run: _Run) -> str:
    return f"M{run[0][0]:.1f},{HEIGHT}L{_line(run)[1:]}L{run[-1][0]:.1f},{HEIGHT}Z"
