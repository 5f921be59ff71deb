"""The decision whether `--embedded` starts a node. The worker and `--check` share it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from slurp.addresses import accepts_connections
from slurp.config import Config
from slurp.embedded.data_folder import DEFAULT_VERSION, default_data_dir
from slurp.errors import Exit, Fatal


@dataclass(frozen=True)
class Launch:
    """An embedded node to start at localhost."""

    port: int
    version: str
    data: Path


def plan_launch(config: Config) -> Launch | None:
    """Return the node that `--embedded` starts, None if something already listens at the first --es.

    Raises Fatal, with the exit code for wrong usage, if that URL is not http://localhost, or if the data
    directory is not set and there is no home directory.
    """
    url = urlsplit(config.es[0])
    if accepts_connections(url.hostname or "localhost", url.port or 9200):
        return None
    if url.scheme != "http" or url.hostname not in ("localhost", "127.0.0.1"):
        raise Fatal(f"--embedded starts a node at http://localhost only, not at {config.es[0]}", Exit.USAGE)
    version = config.embedded_version or DEFAULT_VERSION
    data = config.embedded_data or default_data_dir(version)
    return Launch(url.port or 9200, version, data)
