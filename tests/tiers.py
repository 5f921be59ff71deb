"""The two tiers of the tests: `make test` skips the tests marked `slow`; `make test-all` runs all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_except(values: Iterable[Any], *quick: Any, unpack: bool = False) -> list[Any]:
    """Return the values for `parametrize`, with the mark `slow` on all but the `quick` ones.

    With `unpack` each value is a tuple with one element for each test argument.
    """
    all_values = list(values)
    unknown = [value for value in quick if value not in all_values]
    assert not unknown, f"not among the values: {unknown}"
    return [
        pytest.param(*(value if unpack else (value,)), marks=() if value in quick else pytest.mark.slow)
        for value in all_values
    ]
