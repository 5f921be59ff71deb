"""The readers of a run as one: a single one, or with `--redundant` one for each host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from slurp.pipeline.reader import Reader


class ReaderGroup:
    """What others want to know of them."""

    def __init__(self, readers: Sequence[Reader]) -> None:
        self._readers = tuple(readers)

    def __iter__(self) -> Iterator[Reader]:
        return iter(self._readers)

    @property
    def hosts(self) -> list[str]:
        return [reader.host for reader in self._readers]

    @property
    def host(self) -> str:
        """For people: all hosts, and of several which are away."""
        if not self.connected:
            return " + ".join(self.hosts)
        return " + ".join(
            reader.host if reader.connected else f"{reader.host} (away)" for reader in self._readers
        )

    @property
    def connected(self) -> bool:
        """Whether events can come at all."""
        return any(reader.connected for reader in self._readers)

    @property
    def down_for(self) -> float | None:
        """Seconds since the last of them lost its connection; None while one is connected."""
        times = [reader.down_for for reader in self._readers]
        return None if None in times else min((one for one in times if one is not None), default=None)

    @property
    def trouble(self) -> str:
        """Why there is no connection: what befell those that are away, each named."""
        if len(self._readers) == 1:
            return self._readers[0].trouble
        away = (reader for reader in self._readers if not reader.connected and reader.trouble)
        return "; ".join(f"{reader.host}: {reader.trouble}" for reader in away)
