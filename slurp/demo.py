"""The whole thing on one machine: an embedded Elasticsearch, a simulated Jetstream, the real worker.

`python -m slurp.demo [--seconds N] [--rate N]`; `make demo` sets up what it needs.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from slurp.process import StopSignals, run

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

PASSWORD = "changeme"  # noqa: S105  the default of the program, for a node on loopback
INDEX = "bluesky-events"

# Seconds for which the main thread may wait for an answer of Elasticsearch.
_REQUEST_TIMEOUT = 10.0


def main(signals: StopSignals) -> int:
    """Run the demo; return the exit code."""
    # Imported here: a signal must find its handler before.
    from slurp.embedded.errors import EmbeddedNodeError, StartInterrupted
    from slurp.errors import Fatal

    parser = argparse.ArgumentParser(prog="python -m slurp.demo", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--seconds",
        type=float,
        help="end by itself so long after Elasticsearch is up (default: at Ctrl+C)",
    )
    parser.add_argument("--rate", type=float, default=2000, help="events a second (default: 2000)")
    options = parser.parse_args()
    # The programs that it starts must not outlive it, so a second signal waits for their end as well.
    signals.stuck_after = _REQUEST_TIMEOUT + 5
    try:
        with tempfile.TemporaryDirectory(prefix="skeetslurper-demo-") as folder:
            return _run(Path(folder), options.rate, options.seconds, signals)
    except StartInterrupted:
        print("Stopped before there was anything to show", file=sys.stderr)
        return 1
    except (EmbeddedNodeError, Fatal) as error:
        print(f"The demo's Elasticsearch did not start: {error}", file=sys.stderr)
        return 1


def _run(folder: Path, rate: float, seconds: float | None, signals: StopSignals) -> int:
    from elasticsearch import Elasticsearch

    from slurp.embedded.distribution import DOWNLOAD_MB, ensure_distribution
    from slurp.embedded.node import EmbeddedNode

    node = EmbeddedNode(folder / "node", port=_port(9200), password=PASSWORD)
    print(f"Looking for Elasticsearch (the first time it is fetched, {DOWNLOAD_MB} MB) …", flush=True)
    ensure_distribution(node.version, stop=signals)
    print("Elasticsearch starts …", flush=True)
    node.start(stop=signals)
    with node:
        print(f"Elasticsearch is up at {node.url}, user elastic, password {PASSWORD}", flush=True)
        jetstream_port, page = _port(6008), f"127.0.0.1:{_port(8642)}"
        with (
            _simulator(signals, "--port", str(jetstream_port), "--rate", str(rate)),
            Elasticsearch(
                node.url, basic_auth=("elastic", PASSWORD), request_timeout=_REQUEST_TIMEOUT, max_retries=0
            ) as es,
        ):
            worker = _start(
                str(Path(__file__).parents[1] / "skeetslurper.py"),
                *("--jetstream", f"ws://127.0.0.1:{jetstream_port}", "--es", node.url, "--index", INDEX),
                *("--no-kibana", "--stats-interval", "10s", "--dead-letter", str(folder / "dead.jsonl")),
                *("--http", page),
            )
            print(f"See it at http://{page}", flush=True)
            try:
                _watch(worker, seconds, signals)
            finally:
                code = _stop(worker, signals)
            if not signals.forced:
                _summarise(es)
            # It had not come to its handler of signals yet.
            return 0 if code == -signal.SIGTERM else code


def _watch(worker: subprocess.Popen[bytes], seconds: float | None, signals: StopSignals) -> None:
    """Wait for a signal, the worker's end, or the end of the time."""
    until = float("inf") if seconds is None else time.monotonic() + seconds
    while worker.poll() is None and (left := until - time.monotonic()) > 0:
        if signals.wait(min(0.2, left)):
            return


def _summarise(es: Elasticsearch) -> None:
    """What Elasticsearch itself says of what it holds."""
    es.indices.refresh(index=f"{INDEX}-*")
    # Without an index there are no aggregations in the answer.
    answer = es.search(
        index=f"{INDEX}-*",
        size=0,
        track_total_hits=True,
        aggs={
            "by collection": {"terms": {"field": "commit.collection", "size": 12}},
            "by language": {"terms": {"field": "langs", "size": 8}},
            "top tags": {"terms": {"field": "tags", "size": 10}},
        },
    )
    print(f"\nElasticsearch holds {answer['hits']['total']['value']:,} documents")
    for title, found in answer.get("aggregations", {}).items():
        print(f"\n{title}")
        for bucket in found["buckets"]:
            print(f"  {bucket['doc_count']:>9,}  {bucket['key']}")
    print(
        "\nNext: .venv/bin/python skeetslurper.py --embedded slurps the real Bluesky; README.md has the rest."
    )


def _port(wanted: int) -> int:
    """The usual port, or a free one where somebody has it."""
    from slurp.embedded.node import free_port
    from slurp.jetstream.servers import answers

    return free_port() if answers("127.0.0.1", wanted) else wanted


def _start(*arguments: str) -> subprocess.Popen[bytes]:
    # In a session of its own Ctrl+C does not reach it: it is stopped from here, in the right order.
    return subprocess.Popen([sys.executable, *arguments], start_new_session=True)


def _stop(program: subprocess.Popen[bytes], signals: StopSignals) -> int:
    """End a program in order, or with kill -9 once a second signal asks for it; return its exit code."""
    program.terminate()
    while True:
        if signals.forced:
            program.kill()
        try:
            return program.wait(0.1)
        except subprocess.TimeoutExpired:
            continue


@contextmanager
def _simulator(signals: StopSignals, *arguments: str) -> Iterator[None]:
    program = _start("-m", "slurp.simulator", *arguments)
    try:
        yield
    finally:
        _stop(program, signals)


if __name__ == "__main__":
    run(main)
