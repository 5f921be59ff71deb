"""The thread that keeps trends and names current."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from slurp.actors.appview import AppView
from slurp.actors.changes import ActorChanges, WantedLookup
from slurp.actors.names import Actors
from slurp.actors.wanted import WantedNames
from slurp.config import Config
from slurp.deletions.versions import RatePause, Versions
from slurp.elastic.client import Elastic
from slurp.trends.computing import Trends
from slurp.trends.task import TrendsTask

_SECONDS_PER_DAY = 86_400.0


class TrendKeeper:
    """Trends and names of one `--index`. One thread calls the methods.

    They raise the exceptions of the client.
    """

    def __init__(
        self,
        elastic: Elastic,
        config: Config,
        newest_us: Callable[[], int],
        stop: threading.Event,
        heartbeat: Callable[[], None] = lambda: None,
        wanted: WantedNames | None = None,
    ) -> None:
        """`newest_us` returns the time of the stream (Unix microseconds), 0 while it is not known."""
        appview = None if config.appview is None else AppView(config.appview)
        versions = Versions(elastic, config.index, RatePause(config.deletions_rate, stop), heartbeat)
        actors = Actors(elastic, config.index, appview, heartbeat=heartbeat)
        days = config.trends_retention
        self.wanted = WantedLookup(wanted or WantedNames(), actors)
        self.changes = ActorChanges(versions, actors, time.monotonic)
        self.trends = TrendsTask(
            elastic,
            config.index,
            Trends(elastic, config.index, versions, actors, heartbeat),
            newest_us,
            stop=stop,
            retention=None if days is None else days * _SECONDS_PER_DAY,
        )
