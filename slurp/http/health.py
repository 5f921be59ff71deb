"""Whether the worker is alive, and whether it does its work, in words."""

from __future__ import annotations

import time
from collections.abc import Callable

from slurp.heartbeat import Pulse
from slurp.http.probe import Probe
from slurp.http.safe import label
from slurp.units import format_duration
from slurp.vitals import Vitals

# Characters of a reason.
_REASON = 500


class Health:
    """Each list names what is wrong, one line each; an empty one is good news."""

    def __init__(self, vitals: Vitals, probe: Probe, scrub: Callable[[str], str]) -> None:
        self._vitals = vitals
        self._probe = probe
        self._scrub = scrub

    def stuck(self) -> list[str]:
        """Threads that hang, as systemd's watchdog sees them."""
        return [_hangs(pulse) for pulse in self._vitals.watchdog.stuck]

    def impaired(self) -> list[str]:
        """Threads that hang while indexing goes on without them."""
        return [f"{_hangs(pulse)}; indexing goes on" for pulse in self._vitals.watchdog.impaired]

    def unready(self) -> list[str]:
        """Why no event is indexed now, or would be if one came. It may quote a server, so it is made fit
        to be shown."""
        return [label(reason, _REASON) for reason in self._unready()]

    def _unready(self) -> list[str]:
        vitals = self._vitals
        if vitals.stop.is_set():
            return ["shutting down"]
        found = self.stuck()
        if vitals.starting:
            found.append(f"{vitals.starting}, for {format_duration(time.monotonic() - vitals.began)}")
        if vitals.readers is not None and (down := vitals.readers.down_for) is not None:
            found.append(self._stream(down))
        if (trouble := self._probe.down) is not None:
            found.append(f"Elasticsearch: down for {format_duration(trouble[0])}: {trouble[1]}")
        elif (lasting := vitals.patience.lasting) is not None:
            found.append(
                f"Elasticsearch: takes no documents for {format_duration(lasting[0])}: "
                f"{self._scrub(lasting[1])}"
            )
        elif unanswered := vitals.unanswered:
            found.append(f"Elasticsearch: no answer for {format_duration(unanswered)}")
        if vitals.clock_trouble:
            found.append(vitals.clock_trouble)
        if vitals.disk is not None and vitals.disk.trouble:
            found.append(vitals.disk.trouble)
        return found

    def _stream(self, down: float) -> str:
        readers = self._vitals.readers
        assert readers is not None  # noqa: S101
        ever = any(reader.was_connected for reader in readers)
        what = "down for" if ever else "no connection yet after"
        why = f": {self._scrub(readers.trouble)}" if readers.trouble else ""
        return f"stream: {what} {format_duration(down)}{why}"


def _hangs(pulse: Pulse) -> str:
    return f"{pulse.name} hangs for {format_duration(pulse.still_for)}"
