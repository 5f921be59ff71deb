"""Elasticsearch refuses to run as root: how to start it when we are.

Two ways, both from util-linux. In a user namespace of its own the node is nobody, and for the
kernel still root where files are concerned. Where the kernel forbids that (many containers), it
runs as the user `nobody` with the one right to read and write any file, so that neither the Java
runtime nor the distribution has to be moved to where that user could read it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from slurp.embedded.errors import EmbeddedNodeError

_NAMESPACE = "unshare"
# The kernel's number for "nobody of ours"; it needs no entry in /etc/passwd.
_NOBODY = 65534


def command_prefix() -> list[str]:
    """What to put before a command so that it does not run as root; empty for ordinary users."""
    if os.geteuid() != 0:
        return []
    problems = []
    for prefix in _ways():
        try:
            subprocess.run(
                [*prefix, "true"],
                check=True,
                capture_output=True,
                text=True,
                timeout=10,
                start_new_session=True,  # Ctrl+C is for us, and must not look like a missing right
            )
        except (OSError, subprocess.SubprocessError) as error:
            detail = getattr(error, "stderr", None) or str(error)
            problems.append(f"{prefix[0]}: {detail.strip()}")
        else:
            return prefix
    raise EmbeddedNodeError(
        "Elasticsearch does not run as root, and this system allows neither a user namespace nor another "
        f"user ({'; '.join(problems)}); start the program as an ordinary user"
    )


def own_files(folder: Path, prefix: list[str]) -> None:
    """Give root back what the node wrote as nobody: in a namespace it can only touch root's own files."""
    if prefix[:1] != [_NAMESPACE]:
        return
    for path in [folder, *folder.rglob("*")]:
        if path.lstat().st_uid != 0:
            os.chown(path, 0, 0, follow_symlinks=False)


def _ways() -> list[list[str]]:
    right = "+dac_override"
    return [
        # Without the mapping a JVM cannot attach to itself, which 8.19 and later do.
        [_NAMESPACE, "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}"],
        [
            "setpriv",
            f"--reuid={_NOBODY}",
            f"--regid={_NOBODY}",
            "--clear-groups",
            f"--inh-caps={right}",
            f"--ambient-caps={right}",
            # Else access(2), which Java asks before it opens a file, would leave the right out of account.
            "--securebits=+no_setuid_fixup",
        ],
    ]
