"""The two tiers of the tests: `make test` leaves out the tests marked `slow`; `make test-all` runs all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_except(values: Iterable[Any], *quick: Any) -> list[Any]:
    """Return the values for `parametrize`, with the mark `slow` on all but the `quick` ones."""
    given = list(values)
    missing = [value for value in quick if value not in given]
    assert not missing, f"not among the values: {missing}"
    return [value if value in quick else pytest.param(value, marks=pytest.mark.slow) for value in given]
