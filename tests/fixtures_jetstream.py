"""The `jetstream` fixture: a simulator on a free port, started, with an empty store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from slurp.simulator.jetstream import Simulator


@pytest.fixture
def jetstream() -> Iterator[Simulator]:
    with Simulator(port=0, seed=1) as simulator:
        yield simulator
