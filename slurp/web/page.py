"""The page: what the worker knows of itself, and what Elasticsearch answers, as HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined

from slurp.monitoring.health import Health
from slurp.monitoring.worker_status import WorkerStatus
from slurp.units import format_duration
from slurp.web.charts import HEIGHT, WIDTH, chart
from slurp.web.history import MINUTES, History
from slurp.web.http_server import Answer, Request
from slurp.web.queries import WINDOW_MINUTES, WISH, Bar, PageQueries, SearchRequest, Trouble

# The least that the scales go to: a quiet stream is no mountain range.
_LEAST_RATE, _LEAST_LAG = 10.0, 1.0
# A worker that is this late works, but not on what happens now.
_LATE = 60.0

_KINDS = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}


class Page:
    """`render` never raises what Elasticsearch does."""

    def __init__(
        self, status: WorkerStatus, health: Health, history: History, questions: PageQueries, version: str
    ) -> None:
        self._status = status
        self._health = health
        self._history = history
        self._questions = questions
        self._version = version
        environment = Environment(
            loader=PackageLoader("slurp.web", "assets"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {"number": _number, "rate": _rate, "tick": _tick, "share": _share}
        environment.filters |= {"duration": format_duration, "age": _age}
        environment.tests["trouble"] = lambda value: isinstance(value, Trouble)
        self._template = environment.get_template("page.html")

    def render(self, request: Request) -> Answer:
        wish = SearchRequest.of(request.parameters)
        status, points = self._status, self._history.points()
        now = status.counters.snapshot()
        last = points[-1] if points else None
        # A young worker has not much to show, and shows it on all the room there is.
        span = min(MINUTES * 60.0, max(60.0, math.ceil(points[0].ago / 10) * 10.0)) if points else 60.0
        ago = [point.ago for point in points]
        received = [point.received for point in points]
        answered = [point.answered for point in points]
        lags = [point.lag for point in points]
        text = self._template.render(
            version=self._version,
            span=span,
            window=WINDOW_MINUTES,
            box=f"0 0 {WIDTH} {HEIGHT}",
            unready=self._health.unready(),
            readers=list(status.readers or ()),
            now=now,
            last=last,
            lag=status.lag,
            late=_LATE,
            ran=_ran(status),
            full=status.queue.events / status.queue.max_events,
            most=max(received, default=0.0),
            rates=chart(ago, [received, answered], span, _LEAST_RATE),
            latenesses=chart(ago, [lags], span, _LEAST_LAG),
            overview=self._questions.overview(),
            wish=wish,
            longest=WISH,
            posts=self._questions.posts(wish),
        )
        return Answer(text.encode("utf-8", "replace"), "text/html; charset=utf-8")


def assets() -> dict[str, Answer]:
    """The files beside the page, by their path."""
    folder = resources.files("slurp.web") / "assets"
    return {
        f"/{name}": Answer(
            (folder / name).read_bytes(),
            f"{kind}; charset=utf-8",
            headers={"Cache-Control": "max-age=300"},
        )
        for name, kind in _KINDS.items()
    }


def _ran(status: WorkerStatus) -> float:
    return status.counters.snapshot().at - status.began


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _rate(value: float) -> str:
    return f"{value:,.1f}" if 0 < value < 10 else f"{value:,.0f}"


def _tick(value: float) -> str:
    """At the side of a chart."""
    return f"{value:,.10g}"


def _age(seconds: float) -> str:
    """How long ago, without more than anybody wants to know."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _share(bar: Bar, bars: Sequence[Bar]) -> str:
    """The length of a bar beside the longest, in percent."""
    return f"{100 * bar.count / max(one.count for one in bars):.1f}"
