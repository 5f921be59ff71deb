"""Durations, sizes and TIDs in text form."""

import re

import pytest

from slurp.events import tid
from slurp.units import format_duration, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("30s", 30), ("1.5m", 90), ("36h", 129_600), ("30d", 2_592_000), ("2w", 1_209_600)],
)
def test_a_duration_is_parsed(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "s", "-5s", "5 parsecs", "1h30m"])
def test_an_invalid_duration_is_rejected_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"invalid duration {text!r} (use 30s, 5m, 36h or 30d)")):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"), [("64MB", 64_000_000), ("1KiB", 1024), ("77", 77), ("2gb", 2 * 10**9)]
)
def test_a_size_is_parsed(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["a lot", "10x", "", "-1MB"])
def test_an_invalid_size_is_rejected_with_examples(text: str) -> None:
    with pytest.raises(
        ValueError, match=re.escape(f"invalid size {text!r} (use 500kB, 64MB, 512MiB or 1GB)")
    ):
        parse_size(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4s"), (12, "12s"), (200, "3m20s"), (129_600, "1d12h"), (3600, "1h"), (-3, "-3.0s")],
)
def test_a_duration_is_formatted_with_two_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_a_tid_is_converted_to_microseconds() -> None:
    assert tid.to_micros("3mptbypluud2a") == 1783175887514441


@pytest.mark.parametrize("micros", [0, 1, 1783175887514441, (1 << 53) - 1])
def test_converting_a_tid_back_gives_the_same_time(micros: int) -> None:
    assert tid.to_micros(tid.from_micros(micros, 7)) == micros


@pytest.mark.parametrize(
    "text", ["", "3mptbypluud2", "3mptbypluud2aa", "zmptbypluud2a", "3MPTBYPLUUD2A", "3mptbypluud2\n"]
)
def test_an_invalid_tid_has_no_time(text: str) -> None:
    assert tid.to_micros(text) is None
