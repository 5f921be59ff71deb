"""One measurement of each contender: the same events into new indices of the same node."""

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import psutil

from bench.environment import PASSWORD, ROOT, BenchEnvironment, Usage
from slurp.events.frames import parse
from slurp.events.times import DAY_US

Json = dict[str, Any]

_TIMEOUT = 600.0
_LIMIT_THREADS = 2
_WARM_UP_ROUNDS = 8


@dataclass(frozen=True)
class Measurement:
    """One run of a contender. CPU times are in µs per event."""

    events: int
    seconds: float
    node_us: float
    """CPU time of Elasticsearch, including the creation of the indices."""
    cpu_us: float | None = None
    """CPU time of the contender's process."""
    peak_memory: int | None = None
    """Bytes of the contender's process."""

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds


def limit(env: BenchEnvironment, frames: list[bytes], size: int) -> Measurement:
    """Measure the upper limit: bodies built beforehand, sent by two threads with `http.client`."""
    with env.prefix() as prefix:
        bodies, days = env.bodies(frames, prefix, size)
        env.create_indices(prefix, days)
        node = env.node_usage()
        seconds, rejected = send_bodies(env, bodies)
        if rejected:
            raise RuntimeError(f"Elasticsearch rejected {rejected[0]}")
        return Measurement(len(frames), seconds, node.cpu / len(frames) * 1e6)


def send_bodies(env: BenchEnvironment, bodies: Sequence[bytes]) -> tuple[float, list[str]]:
    """Send `_bulk` bodies with two threads of `http.client`.

    Return the seconds, and the error of each rejected document. Raises what a thread raised.
    """
    queued: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    for body in (*bodies, *[None] * _LIMIT_THREADS):
        queued.put(body)
    failed: list[BaseException] = []
    rejected: list[str] = []
    threads = [
        threading.Thread(target=_post, args=(env, queued, rejected, failed)) for _ in range(_LIMIT_THREADS)
    ]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return time.perf_counter() - began, rejected


def _post(
    env: BenchEnvironment,
    queued: queue.SimpleQueue[bytes | None],
    rejected: list[str],
    failed: list[BaseException],
) -> None:
    try:
        connection = http.client.HTTPConnection(urlsplit(env.node.url).netloc, timeout=_TIMEOUT)
        headers = {
            "Authorization": f"Basic {b64encode(f'elastic:{PASSWORD}'.encode()).decode()}",
            "Content-Type": "application/x-ndjson",
        }
        while (body := queued.get()) is not None:
            connection.request("POST", "/_bulk?filter_path=errors,items.*.error.reason", body, headers)
            response = orjson.loads(connection.getresponse().read())
            if response["errors"]:
                rejected += [item["create"]["error"]["reason"] for item in response["items"]]
        connection.close()
    except BaseException as error:
        failed.append(error)


def skeetslurper(
    env: BenchEnvironment,
    jetstream: str,
    count: int,
    *options: str,
    indices: Mapping[str, Json] | None = None,
) -> Measurement:
    """Measure the worker with default options, from its connection to its last acknowledgement.

    `indices` are daily indices that exist before: days, and the bodies of the requests that create them.
    """
    with env.prefix() as prefix:
        for day, body in (indices or {}).items():
            env.es.indices.create(index=f"{prefix}-{day}", **body)
        process = worker(env, jetstream, prefix, "--since", "0", *options)
        try:
            log = WorkerLog(process)
            began = log.time_of("connected to ")
            usage, node = Usage(process.pid), env.node_usage()
            watch = threading.Thread(target=_sample, args=(usage, process), daemon=True)
            watch.start()
            ended = env.wait_for(prefix, count, process, _TIMEOUT)
            cpu, node_cpu = usage.cpu, node.cpu
        finally:
            process.terminate()
            code = process.wait()
        watch.join()
        if code:
            raise RuntimeError(f"the worker exited with code {code}\n{log.text()}")
        return Measurement(count, ended - began, node_cpu / count * 1e6, cpu / count * 1e6, usage.peak_memory)


def textbook(env: BenchEnvironment, jetstream: str, frames: list[bytes]) -> Measurement:
    """Measure the textbook script up to its last whole batch of 500: it sends no partial one."""
    with env.prefix() as prefix:
        count = len(frames)
        env.create_indices(prefix, {parse(frame)["time_us"] // DAY_US for frame in frames})
        command = ["-m", "bench.textbook", jetstream, env.node.url, PASSWORD, prefix]
        # Not measured: its imports and its handshake, as with the worker.
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, text=True)
        try:
            env.wait_for(prefix, 1, process, _TIMEOUT)
            before, began = env.indexed(prefix), time.time()
            usage, node = Usage(process.pid), env.node_usage()
            goal = count - count % 500
            ended = env.wait_for(prefix, goal, process, _TIMEOUT)
            events = goal - before
            return Measurement(events, ended - began, node.cpu / events * 1e6, usage.cpu / events * 1e6)
        finally:
            process.kill()
            process.wait()


def worker(
    env: BenchEnvironment,
    jetstream: str,
    prefix: str,
    *options: str,
    program: Path = ROOT / "skeetslurper.py",
    times: Path | None = None,
) -> subprocess.Popen[str]:
    """Start the worker in a process; its log must be read. `times` is the file of `bench.timed_worker`."""
    return subprocess.Popen(
        [
            *(sys.executable, str(program), "--jetstream", jetstream, "--es", env.node.url),
            *("--index", prefix, "--no-kibana", "--retention", "forever"),
            *("--dead-letter", str(env.folder / f"{prefix}.jsonl"), *options),
        ],
        stderr=subprocess.PIPE,
        text=True,
        env={"HOME": str(env.folder), "BENCH_TIMES": str(times)},
    )


class WorkerLog:
    """The log of a worker, read by a thread so that the worker is never blocked."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._process = process
        threading.Thread(target=self._read, daemon=True).start()

    def time_of(self, text: str, timeout: float = 60) -> float:
        """Wait for the first line with `text`; return its time in Unix seconds. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._find(text) or self._process.poll() is not None, timeout
            ):
                raise TimeoutError(f"the worker did not log {text!r}\n{self.text()}")
            if (line := self._find(text)) is None:
                raise RuntimeError(f"the worker exited\n{self.text()}")
        stamp = re.split(r"\s", line, maxsplit=1)[0]
        return datetime.fromisoformat(stamp).astimezone(UTC).timestamp()

    def text(self, last: int = 20) -> str:
        """Return the last lines."""
        return "\n".join(self._lines[-last:])

    def _find(self, text: str) -> str | None:
        return next((line for line in self._lines if text in line), None)

    def _read(self) -> None:
        assert self._process.stderr is not None  # noqa: S101
        for line in self._process.stderr:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


def _sample(usage: Usage, process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        while process.poll() is None:
            usage.sample()
            time.sleep(0.1)


def warm_up(env: BenchEnvironment, frames: list[bytes], sizes: Sequence[int]) -> int:
    """Return the number of documents in a body with the highest rate.

    Repeat until no round is 5% faster than the best one: a node needs half a million documents until
    its code is compiled.
    """
    best, found = 0.0, sizes[0]
    for _ in range(_WARM_UP_ROUNDS):
        rates = {size: limit(env, frames, size).rate for size in sizes}
        size = max(rates, key=lambda size: rates[size])
        if rates[size] > best:
            speedup, best, found = rates[size] / max(best, 1.0), rates[size], size
            if speedup > 1.05:
                continue
        break
    return found
