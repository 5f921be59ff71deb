"""Which Jetstream server a reader uses: ranking, cooldown after failures, and changes to a better one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

_FAILURES_BEFORE_NEXT_HOST = 3

# Seconds for which a server that was left for its failures is not preferred; doubled each time.
_COOLDOWN = 1800.0
_MAX_COOLDOWN = 86_400.0


class Failover:
    """The servers of one reader in order of preference, and the current one.

    `prefer` may be called by any thread, all else by the reader's thread.
    """

    def __init__(self, servers: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        """`servers` are ranked, the best one first."""
        self._servers = list(servers)
        self._clock = clock
        self.current = self._servers[0]
        self._failures = 0
        # The latest ranking, and why to change to its first server ('' for no change).
        self.preferred: tuple[tuple[str, ...], str] = ((), "")
        # By server: until when it is in cooldown, and how often it was left.
        self._left: dict[str, tuple[float, int]] = {}

    def prefer(self, ranked: Sequence[str], reason: str = "") -> None:
        """Set the order for the next failover; with a reason, change to the first one when possible.

        Servers that this reader does not have are ignored.
        """
        self.preferred = tuple(ranked), reason

    def in_cooldown(self, server: str) -> bool:
        """Return whether it is too early to change back to a server that was left for its failures."""
        return self._clock() < self._left.get(server, (0.0, 0))[0]

    @property
    def reason_to_change(self) -> str:
        """Why to change to a better server; '' to stay."""
        return self.preferred[1]

    def change(self) -> bool:
        """Change to the preferred server; return whether the current one is another now."""
        ranked, _ = self.preferred
        self.preferred = (ranked, "")
        if ranked[0] not in self._servers:
            return False
        self.current = ranked[0]
        self._failures = 0
        return True

    def succeeded(self) -> None:
        """Reset the failure count."""
        self._failures = 0

    def failed(self) -> None:
        """Count a failure of the current server; after some in a row, change to another one."""
        self._failures += 1
        if self._failures >= _FAILURES_BEFORE_NEXT_HOST and len(self._servers) > 1:
            self._failures = 0
            self._leave()

    def _leave(self) -> None:
        """Change to the best server that is not in cooldown."""
        ranked = {server: place for place, server in enumerate(self.preferred[0])}
        self._servers.sort(key=lambda server: ranked.get(server, len(ranked)))
        times = self._left.get(self.current, (0.0, 0))[1]
        cooldown = min(_COOLDOWN * 2.0**times, _MAX_COOLDOWN)
        self._left[self.current] = self._clock() + cooldown, times + 1
        better = next((one for one in self._servers if not self.in_cooldown(one)), None)
        if better is None:
            # All have failed, so the network is the likely cause: use them in turn.
            self._left.clear()
            place = self._servers.index(self.current)
            better = self._servers[(place + 1) % len(self._servers)]
        self.current = better
