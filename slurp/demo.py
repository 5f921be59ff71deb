"""Demo on one machine: an embedded Elasticsearch node, a simulated Jetstream server and the worker.

Run `make demo`, which installs the requirements, or `python -m slurp.demo [--seconds N] [--rate N]`.
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

PASSWORD = "changeme"  # noqa: S105  the default password of the worker; the node listens on loopback only
INDEX = "bluesky-events"

# Seconds that the main thread may wait for a response of Elasticsearch.
_REQUEST_TIMEOUT = 10.0


def main(signals: StopSignals) -> int:
    """Run the demo; return the exit code."""
    # Imported here, as the signal handlers must be installed first.
    from slurp.embedded.errors import EmbeddedNodeError, StartInterrupted
    from slurp.errors import Fatal

    parser = argparse.ArgumentParser(prog="python -m slurp.demo", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--seconds",
        type=float,
        help="seconds to run after Elasticsearch is ready (default: until Ctrl+C)",
    )
    parser.add_argument("--rate", type=float, default=2000, help="events per second (default: 2000)")
    options = parser.parse_args()
    # The child processes must not outlive the demo, so a second signal also waits until they have ended.
    signals.stuck_after = _REQUEST_TIMEOUT + 5
    try:
        with tempfile.TemporaryDirectory(prefix="skeetslurper-demo-") as folder:
            return _run(Path(folder), options.rate, options.seconds, signals)
    except StartInterrupted:
        print("Stopped before Elasticsearch was ready", file=sys.stderr)
        return 1
    except (EmbeddedNodeError, Fatal) as error:
        print(f"Elasticsearch did not start: {error}", file=sys.stderr)
        return 1


def _run(folder: Path, rate: float, seconds: float | None, signals: StopSignals) -> int:
    from elasticsearch import Elasticsearch

    from slurp.embedded.distribution import DOWNLOAD_MB, ensure_distribution
    from slurp.embedded.node import EmbeddedNode

    node = EmbeddedNode(folder / "node", port=_available_port(9200), password=PASSWORD)
    print(f"Preparing Elasticsearch (downloads {DOWNLOAD_MB} MB the first time) …", flush=True)
    ensure_distribution(node.version, stop=signals)
    print("Starting Elasticsearch …", flush=True)
    node.start(stop=signals)
    with node:
        print(f"Elasticsearch is ready at {node.url}, user elastic, password {PASSWORD}", flush=True)
        jetstream_port, http = _available_port(6008), f"127.0.0.1:{_available_port(8642)}"
        with (
            _simulator(signals, "--port", str(jetstream_port), "--rate", str(rate)),
            Elasticsearch(
                node.url, basic_auth=("elastic", PASSWORD), request_timeout=_REQUEST_TIMEOUT, max_retries=0
            ) as es,
        ):
            worker = _start(
                str(Path(__file__).parents[1] / "skeetslurper.py"),
                *("--appview", f"http://127.0.0.1:{jetstream_port}"),
                *("--jetstream", f"ws://127.0.0.1:{jetstream_port}", "--es", node.url, "--index", INDEX),
                *("--no-kibana", "--stats-interval", "10s", "--dead-letter", str(folder / "dead.jsonl")),
                *("--http", http),
            )
            print(f"Web page: http://{http}", flush=True)
            try:
                _wait_for_end(worker, seconds, signals)
            finally:
                code = _stop(worker, signals)
            if not signals.forced:
                _print_summary(es)
            # The worker was terminated before it had installed its signal handlers.
            return 0 if code == -signal.SIGTERM else code


def _wait_for_end(worker: subprocess.Popen[bytes], seconds: float | None, signals: StopSignals) -> None:
    """Wait until a signal arrives, the worker ends, or `seconds` have passed (None: no limit)."""
    deadline = float("inf") if seconds is None else time.monotonic() + seconds
    while worker.poll() is None and (left := deadline - time.monotonic()) > 0:
        if signals.wait(min(0.2, left)):
            return


def _print_summary(es: Elasticsearch) -> None:
    """Print the number of documents and the most frequent values, as counted by Elasticsearch."""
    es.indices.refresh(index=f"{INDEX}-*")
    # The response has no aggregations if there is no index.
    response = es.search(
        index=f"{INDEX}-*",
        size=0,
        track_total_hits=True,
        aggs={
            "by collection": {"terms": {"field": "commit.collection", "size": 12}},
            "by language": {"terms": {"field": "langs", "size": 8}},
            "top tags": {"terms": {"field": "tags", "size": 10}},
        },
    )
    print(f"\nElasticsearch holds {response['hits']['total']['value']:,} documents")
    for title, result in response.get("aggregations", {}).items():
        print(f"\n{title}")
        for bucket in result["buckets"]:
            print(f"  {bucket['doc_count']:>9,}  {bucket['key']}")
    _print_liked_posts(es)
    print("\nNext: .venv/bin/python skeetslurper.py --embedded reads the real Bluesky; see README.md.")


def _print_liked_posts(es: Elasticsearch) -> None:
    """Print the most liked posts of the last day in the trends, with their authors."""
    from slurp.elastic.templates import TRENDS_INDEX

    es.indices.refresh(index=TRENDS_INDEX, ignore_unavailable=True)
    conditions = {"index": INDEX, "measure": "posts_by_likes", "interval": "day"}
    found = es.search(
        index=TRENDS_INDEX,
        ignore_unavailable=True,
        query={
            "bool": {
                "filter": [{"term": {name: value}} for name, value in conditions.items()],
                "must_not": [{"term": {"hidden": True}}],
            }
        },
        sort=[{"@timestamp": "desc"}, {"rank": "asc"}],
        size=5,
    )
    if found["hits"]["hits"]:
        print("\nmost liked posts")
    for hit in found["hits"]["hits"]:
        row = hit["_source"]
        author = f"@{row['handle']}" if "handle" in row else row["did"]
        print(f"  {row['count']:>9,}  {author}: {row.get('text', row['url'])[:80]}")


def _available_port(port: int) -> int:
    """Return `port`, or a free port if another program listens there."""
    from slurp.addresses import accepts_connections
    from slurp.embedded.node import free_port

    return free_port() if accepts_connections("127.0.0.1", port) else port


def _start(*arguments: str) -> subprocess.Popen[bytes]:
    # In a session of its own, so that Ctrl+C reaches the demo only, which stops the programs in order.
    return subprocess.Popen([sys.executable, *arguments], start_new_session=True)


def _stop(program: subprocess.Popen[bytes], signals: StopSignals) -> int:
    """Terminate a program, or kill it after a second signal; return its exit code."""
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
