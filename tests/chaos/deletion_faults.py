"""Faults of a chaos run while deletions are applied, and deletions in large numbers. None causes a replay."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tests.chaos.environment import ChaosEnvironment
from tests.chaos.schedule import ScheduledFault

FaultFunction = Callable[[ChaosEnvironment, ScheduledFault], None]

# Parts of request lines.
_READS = (b"/_refresh", b"/_search", b"/_pit")
_TOMBSTONES = b"pipeline=_none"
_MAX_RECORDS = 3000


def _reads_rejected(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    with _rejected_requests(environment, _READS, fault.number):
        time.sleep(fault.length)


def _bulks_rejected(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    with _rejected_requests(environment, (b"/_bulk",), fault.number):
        time.sleep(fault.length)


def _deletion_responses_cut(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    """Lose responses to refreshes, searches and requests that write tombstones."""
    until = time.monotonic() + fault.length
    for request in itertools.cycle((*_READS, _TOMBSTONES)):
        if time.monotonic() > until:
            return
        for proxy in environment.es_proxies:
            proxy.cut_answer(request, fault.number % 300, reset=fault.number % 2 == 0)
        time.sleep(0.25)


def _records_deleted(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    environment.delete_records(1 + fault.number % _MAX_RECORDS)
    time.sleep(fault.length)


def _account_deleted(environment: ChaosEnvironment, fault: ScheduledFault) -> None:
    environment.delete_account(1 + fault.number % _MAX_RECORDS)
    time.sleep(fault.length)


@contextmanager
def _rejected_requests(
    environment: ChaosEnvironment, requests: Sequence[bytes], number: int
) -> Iterator[None]:
    """Reject them with 429 and 503 in turn, one of them twice as often."""
    statuses = ((429, 503, 503), (503, 429, 429))[number % 2]
    for proxy in environment.es_proxies:
        proxy.reject(requests, itertools.cycle(statuses))
    try:
        yield
    finally:
        for proxy in environment.es_proxies:
            proxy.pass_on()


KINDS: dict[str, FaultFunction] = {
    "refresh and search rejected": _reads_rejected,
    "bulk requests rejected": _bulks_rejected,
    "responses about deletions cut short": _deletion_responses_cut,
    "many records deleted": _records_deleted,
    "an account with many records deleted": _account_deleted,
}
