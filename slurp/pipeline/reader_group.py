"""The readers of a worker: a single one, or with `--redundant` one for each server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from slurp.pipeline.reader import Reader


class ReaderGroup:
    """Combined state of all readers."""

    def __init__(self, readers: Sequence[Reader]) -> None:
        self._readers = tuple(readers)

    def __iter__(self) -> Iterator[Reader]:
        return iter(self._readers)

    @property
    def hosts(self) -> list[str]:
        """The current host of each reader."""
        return [reader.host for reader in self._readers]

    @property
    def host(self) -> str:
        """All hosts as text, with those marked that are not connected while others are."""
        if not self.connected:
            return " + ".join(self.hosts)
        return " + ".join(
            reader.host if reader.connected else f"{reader.host} (away)" for reader in self._readers
        )

    @property
    def connected(self) -> bool:
        """Whether any reader is connected."""
        return any(reader.connected for reader in self._readers)

    @property
    def was_connected(self) -> bool:
        """Whether any reader has been connected."""
        return any(reader.was_connected for reader in self._readers)

    @property
    def down_for(self) -> float | None:
        """Seconds since the last reader lost its connection; None while one is connected."""
        times = [reader.down_for for reader in self._readers]
        return None if None in times else min((one for one in times if one is not None), default=None)

    @property
    def last_error(self) -> str:
        """Why there is no connection; with several readers, the error of each that is not connected."""
        if len(self._readers) == 1:
            return self._readers[0].last_error
        failed = (reader for reader in self._readers if not reader.connected and reader.last_error)
        return "; ".join(f"{reader.host}: {reader.last_error}" for reader in failed)
