"""Whether the worker is alive, and whether it does its work, in words."""

from __future__ import annotations

import time
from collections.abc import Callable

from slurp.documents.display import label
from slurp.monitoring.elastic_probe import Probe
from slurp.monitoring.worker_status import WorkerStatus
from slurp.units import format_duration
from slurp.watchdog import Pulse

# Characters of a reason.
_REASON = 500


class Health:
    """Each list names what is wrong, one line each; an empty one is good news."""

    def __init__(self, status: WorkerStatus, probe: Probe, scrub: Callable[[str], str]) -> None:
        self._status = status
        self._probe = probe
        self._scrub = scrub

    def stuck(self) -> list[str]:
        """Threads that hang, as systemd's watchdog sees them."""
        return [_hangs(pulse) for pulse in self._status.watchdog.stuck]

    def impaired(self) -> list[str]:
        """Threads that hang while indexing goes on without them."""
        return [f"{_hangs(pulse)}; indexing goes on" for pulse in self._status.watchdog.impaired]

    def unready(self) -> list[str]:
        """Why no event is indexed now, or would be if one came. It may quote a server, so it is made fit
        to be shown."""
        return [label(reason, _REASON) for reason in self._unready()]

    def _unready(self) -> list[str]:
        status = self._status
        if status.stop.is_set():
            return ["shutting down"]
        found = self.stuck()
        if status.starting:
            found.append(f"{status.starting}, for {format_duration(time.monotonic() - status.began)}")
        if status.readers is not None and (down := status.readers.down_for) is not None:
            found.append(self._stream(down))
        if (trouble := self._probe.down) is not None:
            found.append(f"Elasticsearch: down for {format_duration(trouble[0])}: {trouble[1]}")
        elif (lasting := status.outage_log.lasting_outage) is not None:
            found.append(
                f"Elasticsearch: takes no documents for {format_duration(lasting[0])}: "
                f"{self._scrub(lasting[1])}"
            )
        elif unanswered := status.unanswered:
            found.append(f"Elasticsearch: no answer for {format_duration(unanswered)}")
        if status.clock_trouble:
            found.append(status.clock_trouble)
        if status.disk is not None and status.disk.trouble:
            found.append(status.disk.trouble)
        return found

    def _stream(self, down: float) -> str:
        readers = self._status.readers
        assert readers is not None  # noqa: S101
        ever = any(reader.was_connected for reader in readers)
        what = "down for" if ever else "no connection yet after"
        why = f": {self._scrub(readers.trouble)}" if readers.trouble else ""
        return f"stream: {what} {format_duration(down)}{why}"


def _hangs(pulse: Pulse) -> str:
    return f"{pulse.name} hangs for {format_duration(pulse.still_for)}"
