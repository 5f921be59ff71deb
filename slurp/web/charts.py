"""Line charts of the last minutes, as SVG paths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

# The view box. The browser stretches it to the available width; labels are HTML beside it.
WIDTH, HEIGHT = 600, 100


class Chart(NamedTuple):
    """SVG paths in a box of WIDTH x HEIGHT, one for each series; `top` is the value at the upper edge."""

    top: float
    lines: tuple[str, ...]
    areas: tuple[str, ...]


def chart(
    ago: Sequence[float], series: Sequence[Sequence[float | None]], span: float, min_top: float
) -> Chart:
    """Draw values at times `ago` (seconds before now, oldest first) of the last `span` seconds.

    The scale ends at `min_top` or above. A line is interrupted where a value is None.
    """
    highest = max((value for values in series for value in values if value is not None), default=0.0)
    top = round_up(max(highest, min_top))
    segments = [_segments(ago, values, span, top) for values in series]
    return Chart(
        top,
        tuple("".join(map(_line, one)) for one in segments),
        tuple("".join(map(_area, one)) for one in segments),
    )


def round_up(value: float) -> float:
    """Return the next 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * (1 - 1e-9))


_Segment = list[tuple[float, float]]


def _segments(
    ago: Sequence[float], values: Sequence[float | None], span: float, top: float
) -> list[_Segment]:
    """Return the points of each uninterrupted part of a line; a single point is left out."""
    segments: list[_Segment] = [[]]
    for seconds, value in zip(ago, values, strict=True):
        if value is None:
            segments.append([])
        else:
            x = WIDTH * (1 - min(seconds, span) / span)
            segments[-1].append((x, HEIGHT * (1 - min(max(value, 0.0), top) / top)))
    return [segment for segment in segments if len(segment) > 1]


def _line(segment: _Segment) -> str:
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in segment)


def _area(segment: _Segment) -> str:
    return f"M{segment[0][0]:.1f},{HEIGHT}L{_line(segment)[1:]}L{segment[-1][0]:.1f},{HEIGHT}Z"
