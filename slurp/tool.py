"""Commands beside the worker that carry out one task on Elasticsearch, with the options of the worker."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from slurp import logs
from slurp.config import Config, parse
from slurp.elastic.client import FAILURES, Elastic, describe
from slurp.elastic.readiness import wait_until_ready
from slurp.elastic.setup import Setup
from slurp.errors import Exit, Fatal, Stopped
from slurp.lexicons import committed
from slurp.logs import Screen
from slurp.process import StopSignals

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tool:
    """What the task of a command works with."""

    elastic: Elastic
    config: Config
    screen: Screen
    signals: StopSignals

    def check_stop(self) -> None:
        """Raise Stopped once a signal has requested it."""
        if self.signals.requested:
            raise Stopped

    def carry_out(self, task: Callable[[Tool], Exit]) -> Exit:
        """Return the exit code of a task once the cluster is ready and set up; log its failure."""
        try:
            wait_until_ready(self.elastic, self.config, threading.Event())
            # The state index must have its fields; nothing is changed.
            Setup(replace(self.config, no_setup=True), committed()).run(self.elastic.client)
            return task(self)
        except Stopped:
            log.error("stopped by a signal; what was done stays done, run the command again for the rest")
        except Fatal as error:
            log.error("%s", error)
            return error.code
        except FAILURES as error:
            log.error("Elasticsearch: %s; run the command again for the rest", describe(error))
        return Exit.FAILED


def run_tool(options: Sequence[str], signals: StopSignals | None, task: Callable[[Tool], Exit]) -> int:
    """Carry out a task with the options of the worker; return the exit code."""
    config = parse(options)
    secrets = logs.Secrets(config.secrets)
    screen = logs.set_up(config.log_level, config.log_format, secrets)
    elastic = Elastic(config, secrets)
    try:
        return int(Tool(elastic, config, screen, signals or StopSignals()).carry_out(task))
    finally:
        elastic.close()
