import pytest

from slurp.events import tid
from slurp.units import format_duration, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("30s", 30), ("1.5m", 90), ("36h", 129_600), ("30d", 2_592_000), ("2w", 1_209_600)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "s", "-5s", "5 parsecs", "1h30m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"), [("64MB", 64_000_000), ("1KiB", 1024), ("77", 77), ("2gb", 2 * 10**9)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_what_is_no_size_is_refused() -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size("a lot")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4s"), (12, "12s"), (200, "3m20s"), (129_600, "1d12h"), (3600, "1h"), (-3, "-3.0s")],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_a_tid_from_the_network() -> None:
    assert tid.to_micros("3mptbypluud2a") == 1783175887514441


@pytest.mark.parametrize("micros", [0, 1, 1783175887514441, (1 << 53) - 1])
def test_tids_go_there_and_back(micros: int) -> None:
    assert tid.to_micros(tid.from_micros(micros, 7)) == micros


@pytest.mark.parametrize(
    "text", ["", "3mptbypluud2", "3mptbypluud2aa", "zmptbypluud2a", "3MPTBYPLUUD2A", "3mptbypluud2\n"]
)
def test_what_is_no_tid(text: str) -> None:
    assert tid.to_micros(text) is None
