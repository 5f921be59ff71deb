"""Folders of the user, by the XDG base directory specification."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from slurp.errors import Exit, Fatal


def user_folder(
    variable: str, below_home: str, instead: str, environ: Mapping[str, str] = os.environ
) -> Path:
    """Return the folder that `variable` names, else `below_home` in the home directory.

    Raises Fatal, with the exit code for wrong usage, when neither is known: HOME is unset and the user has
    no entry in the password database. `instead` is what the message advises beside setting HOME.
    """
    # The specification says to ignore a relative path.
    path = Path(environ.get(variable, ""))
    if path.is_absolute():
        return path
    home = environ.get("HOME", "")
    try:
        return (Path(home) if home else Path.home()) / below_home
    except RuntimeError:
        raise Fatal(
            f"no home directory: HOME is not set and user {os.getuid()} has no entry in the password "
            f"database; set HOME or {instead}",
            Exit.USAGE,
        ) from None
