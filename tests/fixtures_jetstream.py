"""The fixture `jetstream`: a local Jetstream server without events."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from slurp.simulator.jetstream import Simulator


@pytest.fixture
def jetstream() -> Iterator[Simulator]:
    """Yield a started simulator on a free port."""
    with Simulator(port=0, seed=1) as simulator:
        yield simulator
