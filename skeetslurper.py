#!/usr/bin/env python3
"""Slurp Bluesky's Jetstream into Elasticsearch. See --help."""

from slurp.process import StopSignals, run


def main() -> None:
    """Run the worker and exit with its exit code."""
    run(_run_worker)


def _run_worker(signals: StopSignals) -> int:
    # Imported here: this takes half a second, and the signal handlers must be installed before.
    from slurp.cli import main as run_worker

    return run_worker(signals=signals)


if __name__ == "__main__":
    main()
