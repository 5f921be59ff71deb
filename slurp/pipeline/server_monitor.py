"""Looks now and then whether another server would be clearly better than the one we read from."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from slurp.jetstream.servers import ServerProbe, host_of, probe_servers
from slurp.pipeline.reader import Reader
from slurp.watchdog import Pulse

log = logging.getLogger(__name__)

EVERY = 1800.0

# Reading from a server without v2 while another one may have it.
_EVERY_ON_V1 = 300.0

# A change causes duplicates, and a probe can be luck: the other server must be so much quicker, in share
# and in seconds, and so many times in a row. One that has v2, where ours has not, is better by that alone.
_SHARE = 0.7
_SECONDS = 0.02
_TIMES = 2


class ServerMonitor:
    """`step` is one look: a probe of all servers, and advice to the reader."""

    def __init__(
        self,
        reader: Reader,
        servers: Sequence[str],
        every: float = EVERY,
        probe: Callable[[Sequence[str]], list[ServerProbe]] = probe_servers,
    ) -> None:
        self._reader = reader
        self._servers = tuple(servers)
        self._every = self._wait = every
        self._probe = probe
        self._best = ""
        self._times = 0

    def run(self, stop: threading.Event, pulse: Pulse) -> None:
        while not stop.wait(self._wait):
            with pulse:
                self.step()

    def step(self) -> None:
        probes = self._probe(self._servers)
        here = self._reader.server
        current = next(one for one in probes if one.url == here)
        may_have_v2 = any(one.v2 or not one.times for one in probes)
        self._wait = min(self._every, _EVERY_ON_V1) if may_have_v2 and not current.v2 else self._every
        ranked = [one.url for one in probes]
        best = next((one for one in probes if self._may_be_better(one)), current)
        # Ours may fail a probe while its stream flows. When it does not, the reader sees that for itself.
        if best is current or not current.times or not (text := _advantage(best, current)):
            self._best, self._times = "", 0
            self._reader.prefer(ranked)
            return
        self._times = self._times + 1 if best.url == self._best else 1
        self._best = best.url
        log.info("%s would be better: %s, seen %d time(s)", host_of(best.url), text, self._times)
        if self._times < _TIMES and best.v2 == current.v2:
            self._reader.prefer(ranked)
        else:
            self._reader.prefer([best.url, *(url for url in ranked if url != best.url)], text)

    def _may_be_better(self, one: ServerProbe) -> bool:
        """A server that was listened to and sent nothing is none, however quick."""
        is_silent = one.listened and one.first_event is None
        return bool(one.times) and not is_silent and not self._reader.in_cooldown(one.url)


def _advantage(best: ServerProbe, current: ServerProbe) -> str:
    """Why `best` is clearly the better one; empty when it is not."""
    if best.v2 != current.v2:
        return "it speaks v2" if best.v2 else ""
    if best.median <= current.median * _SHARE and current.median - best.median >= _SECONDS:
        return f"its handshake takes {_ms(best)} instead of {_ms(current)}"
    return ""


def _ms(probe: ServerProbe) -> str:
    return f"{probe.median * 1000:.0f} ms"
