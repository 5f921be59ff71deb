"""The HTML page: the state of the worker, and query results of Elasticsearch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from slurp.monitoring.health import Health
from slurp.monitoring.worker_status import WorkerStatus
from slurp.units import format_duration
from slurp.web.charts import HEIGHT, WIDTH, chart
from slurp.web.history import MINUTES, History
from slurp.web.http_server import Request, Response
from slurp.web.queries import MAX_LENGTH, WINDOW_MINUTES, PageQueries, SearchRequest, TermCount, Unavailable
from slurp.web.totals import DAYS, HOURS, Totals

# The minimum of the scales (events per second, seconds), so that small fluctuations look small.
_MIN_RATE, _MIN_LAG = 10.0, 1.0
# With a lag above so many seconds the page shows "catching up".
_CATCHING_UP = 60.0

_FILE_TYPES = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}


class Page:
    """Renders the page. Errors of Elasticsearch become text on the page."""

    def __init__(
        self, status: WorkerStatus, health: Health, history: History, queries: PageQueries, version: str
    ) -> None:
        self._status = status
        self._health = health
        self._history = history
        self._queries = queries
        self._version = version
        environment = Environment(
            loader=PackageLoader("slurp.web", "assets"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {"number": _number, "rate": _rate, "tick": _tick, "percent_of": _percent_of}
        environment.filters |= {"duration": format_duration, "age": _age}
        environment.tests["unavailable"] = lambda value: isinstance(value, Unavailable)
        self._template = environment.get_template("page.html")

    def render(self, request: Request) -> Response:
        """Return the page for the search in the request's parameters, or with the latest posts."""
        search = SearchRequest.from_parameters(request.parameters)
        status, points = self._status, self._history.points()
        now = status.counters.snapshot()
        last = points[-1] if points else None
        # Shortly after the start, the charts show the time since then, but one minute at least.
        span = min(MINUTES * 60.0, max(60.0, math.ceil(points[0].ago / 10) * 10.0)) if points else 60.0
        ago = [point.ago for point in points]
        received = [point.received for point in points]
        acknowledged = [point.acknowledged for point in points]
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
            catching_up=_CATCHING_UP,
            uptime=now.at - status.started_monotonic,
            buffer_used=status.queue.events / status.queue.max_events,
            max_rate=max(received, default=0.0),
            rate_chart=chart(ago, [received, acknowledged], span, _MIN_RATE),
            lag_chart=chart(ago, [lags], span, _MIN_LAG),
            overview=self._queries.overview(),
            trending=self._queries.trending(),
            **_totals_charts(self._queries.totals()),
            search=search,
            max_length=MAX_LENGTH,
            posts=self._queries.posts(search),
        )
        return Response(text.encode("utf-8", "replace"), "text/html; charset=utf-8")


def _totals_charts(totals: Totals | Unavailable) -> dict[str, Any]:
    """Return the curves of the last hours and days, each with its chart; None for what is not available."""
    found = Totals() if isinstance(totals, Unavailable) else totals
    spans = {"hours": (found.posts, HOURS * 3600.0), "days": (found.people, DAYS * 86_400.0)}
    return {
        name: None if curve.is_empty else (curve, chart(curve.ago, [curve.values], span, _MIN_RATE))
        for name, (curve, span) in spans.items()
    }


def static_files() -> dict[str, Response]:
    """Return style sheet, script and icon by their paths."""
    folder = resources.files("slurp.web") / "assets"
    return {
        f"/{name}": Response(
            (folder / name).read_bytes(),
            f"{file_type}; charset=utf-8",
            headers={"Cache-Control": "max-age=300"},
        )
        for name, file_type in _FILE_TYPES.items()
    }


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _rate(value: float) -> str:
    return f"{value:,.1f}" if 0 < value < 10 else f"{value:,.0f}"


def _tick(value: float) -> str:
    """Format a value of a chart's scale."""
    return f"{value:,.10g}"


def _age(seconds: float) -> str:
    """Format an age in its largest unit: `3 h ago`."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _percent_of(term: TermCount, terms: Sequence[TermCount]) -> str:
    """Return the length of a bar, in percent of the longest one."""
    return f"{100 * term.count / max(one.count for one in terms):.1f}"
