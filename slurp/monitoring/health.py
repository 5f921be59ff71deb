"""The answers of `/healthz` and `/readyz`: stuck threads, and reasons why events are not indexed."""

from __future__ import annotations

import time
from collections.abc import Callable

from slurp.documents.display import clean_label
from slurp.monitoring.elastic_probe import ElasticProbe
from slurp.monitoring.worker_status import WorkerStatus
from slurp.units import format_duration
from slurp.watchdog import Heartbeat

# The maximum length of a reason, in characters.
_REASON = 500


class Health:
    """Problems of the worker as text, one line each; an empty list means that there are none."""

    def __init__(self, status: WorkerStatus, probe: ElasticProbe, scrub: Callable[[str], str]) -> None:
        self._status = status
        self._probe = probe
        self._scrub = scrub

    def stuck(self) -> list[str]:
        """Return the stuck threads that indexing needs; the systemd watchdog restarts the worker then."""
        return [_describe(heartbeat) for heartbeat in self._status.watchdog.stuck]

    def impaired(self) -> list[str]:
        """Return the stuck threads that indexing does not need."""
        return [f"{_describe(heartbeat)}; indexing continues" for heartbeat in self._status.watchdog.impaired]

    def unready(self) -> list[str]:
        """Return the reasons why events are not indexed now, or would not be if one arrived.

        A reason may quote a server, so it is sanitized and shortened for display.
        """
        return [clean_label(reason, _REASON) for reason in self._unready()]

    def _unready(self) -> list[str]:
        status = self._status
        if status.stop.is_set():
            return ["shutting down"]
        reasons = self.stuck()
        if status.starting:
            reasons.append(
                f"{status.starting}, for {format_duration(time.monotonic() - status.started_monotonic)}"
            )
        if status.readers is not None and (down := status.readers.down_for) is not None:
            reasons.append(self._stream(down))
        if (outage := self._probe.down) is not None:
            reasons.append(f"Elasticsearch: down for {format_duration(outage[0])}: {outage[1]}")
        elif (lasting := status.outage_log.lasting_outage) is not None:
            reasons.append(
                f"Elasticsearch: accepts no documents for {format_duration(lasting[0])}: "
                f"{self._scrub(lasting[1])}"
            )
        elif unanswered := status.late_response:
            reasons.append(f"Elasticsearch: no response for {format_duration(unanswered)}")
        if status.clock_error:
            reasons.append(status.clock_error)
        if status.disk is not None and status.disk.error:
            reasons.append(status.disk.error)
        return reasons

    def _stream(self, down: float) -> str:
        readers = self._status.readers
        assert readers is not None  # noqa: S101
        was_connected = readers.was_connected
        state = "down for" if was_connected else "no connection yet after"
        reason = f": {self._scrub(readers.last_error)}" if readers.last_error else ""
        return f"stream: {state} {format_duration(down)}{reason}"


def _describe(heartbeat: Heartbeat) -> str:
    return f"{heartbeat.name} has been stuck for {format_duration(heartbeat.seconds_since_beat)}"
