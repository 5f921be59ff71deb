"""The hours and UTC days for which trends are computed. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from slurp.events.times import DAY_US, isoformat

HOUR_US = 3_600_000_000
HOUR, DAY = "hour", "day"
_LENGTHS = {HOUR: HOUR_US, DAY: DAY_US}


@dataclass(frozen=True, order=True)
class Interval:
    """An hour or a day, from `start_us` (Unix microseconds)."""

    start_us: int
    name: str = HOUR

    @classmethod
    def hour_of(cls, time_us: int) -> Interval:
        """Return the hour that contains a time."""
        return cls(time_us - time_us % HOUR_US)

    @property
    def end_us(self) -> int:
        """The first time after it."""
        return self.start_us + _LENGTHS[self.name]

    @property
    def day(self) -> int:
        """The number of its day since 1970-01-01."""
        return self.start_us // DAY_US

    @property
    def its_day(self) -> Interval:
        """The day that contains it."""
        return Interval(self.day * DAY_US, DAY)

    @property
    def start(self) -> str:
        """ISO 8601, UTC."""
        return isoformat(self.start_us)

    @property
    def middle(self) -> str:
        """ISO 8601, UTC."""
        return isoformat((self.start_us + self.end_us) // 2)

    @property
    def end(self) -> str:
        """ISO 8601, UTC."""
        return isoformat(self.end_us)

    def __str__(self) -> str:
        return f"{self.name} {self.start[:13]}" if self.name == HOUR else f"{self.name} {self.start[:10]}"
