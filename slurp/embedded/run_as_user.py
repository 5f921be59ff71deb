"""Run Elasticsearch as an unprivileged user: it does not start as root.

Two ways, both from util-linux. In a user namespace of its own the node is `nobody`, while the kernel
still treats it as root for file access. Where the kernel forbids that (many containers), it runs as
the user `nobody` with the capability to read and write any file, so that neither the Java runtime
nor the distribution has to be moved to a folder which that user can read.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from slurp.embedded.errors import EmbeddedNodeError

_NAMESPACE = "unshare"
# The kernel's overflow uid; it needs no entry in /etc/passwd.
_NOBODY = 65534


def command_prefix() -> list[str]:
    """Return the command prefix that drops root; empty for other users. Raises EmbeddedNodeError."""
    if os.geteuid() != 0:
        return []
    problems = []
    for prefix in _prefixes():
        try:
            subprocess.run(
                [*prefix, "true"],
                check=True,
                capture_output=True,
                text=True,
                timeout=10,
                start_new_session=True,  # keep Ctrl+C from failing the probe
            )
        except (OSError, subprocess.SubprocessError) as error:
            detail = getattr(error, "stderr", None) or str(error)
            problems.append(f"{prefix[0]}: {detail.strip()}")
        else:
            return prefix
    raise EmbeddedNodeError(
        "Elasticsearch does not run as root, and this system allows neither a user namespace nor another "
        f"user ({'; '.join(problems)}); start the program as a non-root user"
    )


def own_files(folder: Path, prefix: list[str]) -> None:
    """Make root the owner of all files again: in a namespace the node can only access files of root."""
    if prefix[:1] != [_NAMESPACE]:
        return
    for path in [folder, *folder.rglob("*")]:
        if path.lstat().st_uid != 0:
            os.chown(path, 0, 0, follow_symlinks=False)


def _prefixes() -> list[list[str]]:
    capability = "+dac_override"
    return [
        # Without the mapping a JVM cannot attach to itself, which 8.19 and later do.
        [_NAMESPACE, "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}"],
        [
            "setpriv",
            f"--reuid={_NOBODY}",
            f"--regid={_NOBODY}",
            "--clear-groups",
            f"--inh-caps={capability}",
            f"--ambient-caps={capability}",
            # Otherwise access(2), which Java calls before it opens a file, ignores the capability.
            "--securebits=+no_setuid_fixup",
        ],
    ]
