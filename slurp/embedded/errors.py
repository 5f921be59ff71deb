"""Exceptions of the embedded node."""

from __future__ import annotations

import threading

from slurp.process import StopSignals

Stop = threading.Event | StopSignals
"""What long steps wait on, to end early."""


class EmbeddedNodeError(Exception):
    """The embedded node cannot be started; the text has the reason and the remedy."""


class StartInterrupted(EmbeddedNodeError):
    """A stop was requested while the node was being downloaded or started."""


def missing_extra(package: str) -> EmbeddedNodeError:
    """Return the error for a missing package of the optional extra."""
    return EmbeddedNodeError(
        f"the embedded node needs the package {package}: pip install 'elastic-skeetslurper[embedded]' "
        "(in a clone: pip install -e '.[embedded]')"
    )
