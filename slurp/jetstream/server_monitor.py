"""Periodic check whether another Jetstream server is clearly better than the current one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from slurp.jetstream.failover import Failover
from slurp.jetstream.servers import ServerProbe, host_of, probe_servers

log = logging.getLogger(__name__)

EVERY = 1800.0

# While the current server has no v2 and another one may have it.
_EVERY_ON_V1 = 300.0

# A change causes duplicates, and one fast probe may be chance: the other server must be faster by this share
# and by these seconds, this many times in a row. One with v2, where ours has none, is better by that alone.
_SHARE = 0.7
_SECONDS = 0.02
_TIMES = 2


class ServerMonitor:
    """Probes all servers and tells the failover of a reader which order to prefer."""

    def __init__(
        self,
        failover: Failover,
        servers: Sequence[str],
        probe: Callable[[Sequence[str]], list[ServerProbe]] = probe_servers,
        every: float = EVERY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`every` is the interval in seconds; `probe` returns the servers ranked, the best one first."""
        self._failover = failover
        self._servers = tuple(servers)
        self._probe = probe
        self._every = every
        self._clock = clock
        self._due = clock() + every
        self._best = ""
        self._times = 0

    def step(self) -> None:
        """Probe the servers if the interval has passed; this takes some seconds."""
        if self._clock() < self._due:
            return
        self.check()

    def check(self) -> None:
        """Probe all servers now."""
        probes = self._probe(self._servers)
        current = next(one for one in probes if one.url == self._failover.current)
        may_have_v2 = any(one.v2 or not one.times for one in probes)
        wait = min(self._every, _EVERY_ON_V1) if may_have_v2 and not current.v2 else self._every
        self._due = self._clock() + wait
        ranked = [one.url for one in probes]
        best = next((one for one in probes if self._may_be_better(one)), current)
        # The current server may fail a probe while its stream flows. If it does not, the reader notices.
        if best is current or not current.times or not (advantage := _advantage(best, current)):
            self._best, self._times = "", 0
            self._failover.prefer(ranked)
            return
        self._times = self._times + 1 if best.url == self._best else 1
        self._best = best.url
        log.info("%s is better: %s, in %d probe(s) in a row", host_of(best.url), advantage, self._times)
        if self._times < _TIMES and best.v2 == current.v2:
            self._failover.prefer(ranked)
        else:
            self._failover.prefer([best.url, *(url for url in ranked if url != best.url)], advantage)

    def _may_be_better(self, one: ServerProbe) -> bool:
        """Return whether a server is reachable, not silent and not in cooldown."""
        is_silent = one.listened and one.first_event is None
        return bool(one.times) and not is_silent and not self._failover.in_cooldown(one.url)


def _advantage(best: ServerProbe, current: ServerProbe) -> str:
    """Return why `best` is clearly better than `current`; '' when it is not."""
    if best.v2 != current.v2:
        return "it has the v2 protocol" if best.v2 else ""
    if best.median <= current.median * _SHARE and current.median - best.median >= _SECONDS:
        return f"its handshake takes {_ms(best)} instead of {_ms(current)}"
    return ""


def _ms(probe: ServerProbe) -> str:
    return f"{probe.median * 1000:.0f} ms"
