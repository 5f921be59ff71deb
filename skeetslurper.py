#!/usr/bin/env python3
"""Slurp Bluesky's Jetstream into Elasticsearch. Try --help."""

from slurp.process import StopSignals, run


def main() -> None:
    """Run the worker as this process."""
    run(_work)


def _work(signals: StopSignals) -> int:
    # Imported here: it takes half a second, and a signal in that time must find a handler.
    from slurp.cli import main as work

    return work(signals=signals)


if __name__ == "__main__":
    main()
