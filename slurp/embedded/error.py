"""What can go wrong with an embedded node, as one family of exceptions."""

from __future__ import annotations

from typing import Protocol


class Stop(Protocol):
    """What a long step looks at to end early: an Event of threading, or StopSignals."""

    def is_set(self) -> bool:
        """Return whether to end."""

    def wait(self, timeout: float, /) -> bool:
        """Wait so many seconds at most; return whether to end."""


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
