"""How much room the disk of the embedded node has, and from where on the node refuses to write."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from slurp.embedded.error import EmbeddedNodeError
from slurp.units import format_size

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
