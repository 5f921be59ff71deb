"""Directories of the user, by the XDG base directory specification."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from slurp.errors import Exit, Fatal


def user_folder(
    variable: str, below_home: str, alternative: str, environ: Mapping[str, str] = os.environ
) -> Path:
    """Return the directory in the environment variable `variable`, else `below_home` in the home directory.

    Raises Fatal, with the exit code for wrong usage, if neither is known: HOME is unset and the user has no
    entry in the password database. Its message says to set HOME or to do `alternative`.
    """
    # The specification requires that a relative path is ignored.
    path = Path(environ.get(variable, ""))
    if path.is_absolute():
        return path
    home = environ.get("HOME", "")
    try:
        return (Path(home) if home else Path.home()) / below_home
    except RuntimeError:
        raise Fatal(
            f"no home directory: HOME is not set and user {os.getuid()} has no entry in the password "
            f"database; set HOME or {alternative}",
            Exit.USAGE,
        ) from None
