"""One round of each contender: the same events into a fresh index of the same node."""

from __future__ import annotations

import contextlib
import http.client
import queue
import re
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import psutil

from bench.rig import PASSWORD, ROOT, Rig, Usage
from slurp.events.frames import parse
from slurp.events.times import DAY_US

_WAIT = 600.0
_LIMIT_THREADS = 2
_WARM_ROUNDS = 8


@dataclass(frozen=True)
class Round:
    """What one round took. CPU is per event, in µs; it and the memory are of the contender's process."""

    events: int
    seconds: float
    node_us: float
    """What Elasticsearch took, with making the indices."""
    cpu_us: float | None = None
    peak: int | None = None
    """Bytes."""

    @property
    def rate(self) -> float:
        return self.events / self.seconds


def limit(rig: Rig, frames: list[bytes], size: int) -> Round:
    """The cheapest client there is: bodies made beforehand, two threads of `http.client`."""
    with rig.prefix() as prefix:
        bodies, days = rig.bodies(frames, prefix, size)
        rig.make_indices(prefix, days)
        waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        for body in (*bodies, *[None] * _LIMIT_THREADS):
            waiting.put(body)
        failed: list[BaseException] = []
        threads = [threading.Thread(target=_post, args=(rig, waiting, failed)) for _ in range(_LIMIT_THREADS)]
        node = rig.node_usage()
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - began
        if failed:
            raise failed[0]
        return Round(len(frames), seconds, node.cpu / len(frames) * 1e6)


def _post(rig: Rig, waiting: queue.SimpleQueue[bytes | None], failed: list[BaseException]) -> None:
    try:
        connection = http.client.HTTPConnection(urlsplit(rig.node.url).netloc, timeout=_WAIT)
        headers = {
            "Authorization": f"Basic {b64encode(f'elastic:{PASSWORD}'.encode()).decode()}",
            "Content-Type": "application/x-ndjson",
        }
        while (body := waiting.get()) is not None:
            connection.request("POST", "/_bulk?filter_path=errors", body, headers)
            answer = orjson.loads(connection.getresponse().read())
            if answer["errors"]:
                raise RuntimeError("Elasticsearch refused some of the documents")
        connection.close()
    except BaseException as error:
        failed.append(error)


def ours(rig: Rig, jetstream: str, count: int, *options: str) -> Round:
    """The worker as it is started by anybody, from its first connection to its last acknowledgement."""
    with rig.prefix() as prefix:
        process = worker(rig, jetstream, prefix, "--since", "0", *options)
        try:
            log = Log(process)
            began = log.moment_of("connected to ")
            usage, node = Usage(process.pid), rig.node_usage()
            watch = threading.Thread(target=_watch, args=(usage, process), daemon=True)
            watch.start()
            ended = rig.wait_for(prefix, count, process, _WAIT)
            cpu, node_cpu = usage.cpu, node.cpu
        finally:
            process.terminate()
            code = process.wait()
        watch.join()
        if code:
            raise RuntimeError(f"the worker ended with {code}\n{log.text()}")
        return Round(count, ended - began, node_cpu / count * 1e6, cpu / count * 1e6, usage.peak)


def textbook(rig: Rig, jetstream: str, frames: list[bytes]) -> Round:
    """The script of an evening. It stops at whole batches, so the last few events are not waited for."""
    with rig.prefix() as prefix:
        count = len(frames)
        rig.make_indices(prefix, {parse(frame)["time_us"] // DAY_US for frame in frames})
        command = ["-m", "bench.textbook", jetstream, rig.node.url, PASSWORD, prefix]
        # Its imports and handshake are not counted either.
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, text=True)
        try:
            rig.wait_for(prefix, 1, process, _WAIT)
            already, began = rig.taken(prefix), time.time()
            usage, node = Usage(process.pid), rig.node_usage()
            goal = count - count % 500
            ended = rig.wait_for(prefix, goal, process, _WAIT)
            events = goal - already
            return Round(events, ended - began, node.cpu / events * 1e6, usage.cpu / events * 1e6)
        finally:
            process.kill()
            process.wait()


def worker(
    rig: Rig,
    jetstream: str,
    prefix: str,
    *options: str,
    program: Path = ROOT / "skeetslurper.py",
    times: Path | None = None,
) -> subprocess.Popen[str]:
    """The worker in a process of its own; its log is to be read. `times` is for `bench.timed`."""
    return subprocess.Popen(
        [
            *(sys.executable, str(program), "--jetstream", jetstream, "--es", rig.node.url),
            *("--index", prefix, "--no-kibana", "--retention", "forever"),
            *("--dead-letter", str(rig.folder / f"{prefix}.jsonl"), *options),
        ],
        stderr=subprocess.PIPE,
        text=True,
        env={"HOME": str(rig.folder), "BENCH_TIMES": str(times)},
    )


class Log:
    """The log of a worker, read on a thread so that it never waits for us."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._process = process
        threading.Thread(target=self._read, daemon=True).start()

    def moment_of(self, text: str, timeout: float = 60) -> float:
        """When (Unix seconds) the first line with `text` was written."""
        with self._news:
            if not self._news.wait_for(lambda: self._find(text) or self._process.poll() is not None, timeout):
                raise TimeoutError(f"the worker did not say {text!r}\n{self.text()}")
            if (line := self._find(text)) is None:
                raise RuntimeError(f"the worker ended\n{self.text()}")
        stamp = re.split(r"\s", line, maxsplit=1)[0]
        return datetime.fromisoformat(stamp).astimezone(UTC).timestamp()

    def text(self, last: int = 20) -> str:
        return "\n".join(self._lines[-last:])

    def _find(self, text: str) -> str | None:
        return next((line for line in self._lines if text in line), None)

    def _read(self) -> None:
        assert self._process.stderr is not None  # noqa: S101
        for line in self._process.stderr:
            with self._news:
                self._lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()


def _watch(usage: Usage, process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        while process.poll() is None:
            usage.look()
            time.sleep(0.1)


def warm_up(rig: Rig, frames: list[bytes], sizes: Sequence[int]) -> int:
    """The number of documents in a body at which the node takes most.

    Takes turns until no round is a twentieth faster than the best before: a node needs half a million
    documents until its code is compiled.
    """
    best, found = 0.0, sizes[0]
    for _ in range(_WARM_ROUNDS):
        rates = {size: limit(rig, frames, size).rate for size in sizes}
        size = max(rates, key=lambda size: rates[size])
        if rates[size] > best:
            gained, best, found = rates[size] / max(best, 1.0), rates[size], size
            if gained > 1.05:
                continue
        break
    return found
