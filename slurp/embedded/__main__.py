"""`python -m slurp.embedded`: run a node in the foreground until Ctrl+C."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from slurp.embedded.data_folder import DEFAULT_VERSION, default_data_dir
from slurp.errors import Fatal
from slurp.process import StopSignals, run


def main(arguments: list[str] | None = None, signals: StopSignals | None = None) -> int:
    """Start the node, print its address, run it until a stop signal arrives; return the exit code."""
    # Imported here: the signal handlers are installed before these slow imports.
    from slurp.embedded.errors import EmbeddedNodeError, StartInterrupted
    from slurp.embedded.node import EmbeddedNode, NodeOptions

    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    signals = signals or StopSignals()
    try:
        data = options.data or default_data_dir(options.version)
    except Fatal as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    node = EmbeddedNode(
        data,
        port=options.port,
        version=options.version,
        password=options.password,
        options=NodeOptions(heap=options.heap),
    )
    try:
        node.start(stop=signals)
        address = f"Elasticsearch {options.version} at {node.url}"
        print(f"{address}, user elastic, data in {node.data}; Ctrl+C to stop", flush=True)
        while not signals.wait(0.5):
            if not node.running:
                print(f"error: the node stopped unexpectedly; see its log {node.log}", file=sys.stderr)
                return 1
    except StartInterrupted:
        return 0
    except EmbeddedNodeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        node.stop()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m slurp.embedded",
        description="Run a real Elasticsearch node from packages. It listens on loopback only, where every "
        "user of this machine can reach it: choose a password if the machine has other users.",
        allow_abbrev=False,
    )
    parser.add_argument("--port", type=int, default=9200, help="0 chooses a free one (default: %(default)s)")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="data folder (default: below ~/.local/share/skeetslurper)"
    )
    parser.add_argument(
        "--version",
        default=DEFAULT_VERSION,
        help="Elasticsearch release (default: %(default)s); 8.18 and later need a JDK",
    )
    parser.add_argument("--heap", default="512m", help="heap size of the JVM (default: %(default)s)")
    parser.add_argument(
        "--password",
        default="changeme",
        help="password of the user elastic, fixed at the first use of the data folder (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    run(lambda signals: main(signals=signals))
