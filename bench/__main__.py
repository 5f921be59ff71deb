"""`python -m bench`: ours beside the limit and beside a textbook script, in one run on this machine.

Each part named is measured; `--write` puts its section into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import psutil

from bench import contenders, latency, stages
from bench.contenders import Round
from bench.rig import ROOT, Rig, jsonl
from slurp import __version__

DOCUMENT = ROOT / "docs" / "benchmarks.md"
CORPUS = ROOT.parent / "shared" / "corpus"
_SIZES = (1000, 2500, 5000)
_HEAD = """\
# Benchmarks

Written by `make bench`, section by section: each holds what one run measured, side by side on one machine.
Compare numbers of one section only. Simulator, worker and Elasticsearch share the cores, so what the worker
takes is missing to Elasticsearch: the ratio to the limit is about E/(E+W), with the CPU time of either.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: {_USUAL})")
    parser.add_argument("--quick", action="store_true", help="a minute or two: few events, one round")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    options = parser.parse_args()
    parts = options.parts or (["sides"] if options.quick else _USUAL.split(", "))
    if unknown := set(parts) - PARTS.keys():
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    with Rig() as rig:
        for part in parts:
            lines = [*PARTS[part](rig, options.quick)]
            print("\n".join(["", *lines]), flush=True)
            if options.write:
                _write(part, lines)
    return 0


def sides(rig: Rig, quick: bool) -> Iterable[str]:
    """Limit, ours and textbook, taking turns."""
    count, rounds = (60_000, 1) if quick else (250_000, 3)
    frames = rig.frames(count)
    size = contenders.warm_up(rig, frames[:60_000], _SIZES)
    found: dict[str, list[Round]] = {"limit": [], "ours": [], "textbook": []}
    with rig.jetstream(count) as url:
        for _ in range(rounds):
            found["limit"].append(contenders.limit(rig, frames, size))
            found["ours"].append(contenders.ours(rig, url, count, "--protocol", "v1"))
            found["textbook"].append(contenders.textbook(rig, url, frames))
    yield "## Side by side"
    yield ""
    yield (
        f"{count:,} simulated events of {sum(map(len, frames)) / count:.0f} bytes, {rounds} round(s) each, "
        "medians. The limit is two threads of `http.client` with documents made beforehand, "
        f"{size:,} in a request. Ours and the textbook script read the v1 wire, uncompressed."
    )
    yield ""
    yield "| | events/s | ratio | spread | CPU µs an event | Elasticsearch's CPU µs | peak RSS |"
    yield "|---|---|---|---|---|---|---|"
    top = _median(found["limit"])
    for name, taken in found.items():
        rates = [one.rate for one in taken]
        cpu = _of([one.cpu_us for one in taken], "{:.1f}")
        node = _of([one.node_us for one in taken], "{:.1f}")
        peak = max((one.peak or 0 for one in taken), default=0)
        memory = f"{peak / 1e6:.0f} MB" if peak else ""
        yield (
            f"| {name} | {_median(taken):,.0f} | {_median(taken) / top:.2f} "
            f"| {min(rates):,.0f} to {max(rates):,.0f} | {cpu} | {node} | {memory} |"
        )
    yield ""
    yield f"Ours is {_median(found['ours']) / _median(found['textbook']):.1f} times the textbook script."
    yield from _machine()


def single_stages(rig: Rig, quick: bool) -> Iterable[str]:
    """Each stage of an event by itself."""
    count = 20_000 if quick else 60_000
    received = stages.receiving(rig, count)
    simulated = rig.frames(count)
    made = {"simulated": stages.making(simulated)}
    for name, path in stages.corpora(CORPUS):
        if name == "real":
            made[name] = stages.making(stages.repeated(jsonl(path), count // 3))
    sent = stages.sending(rig, simulated)
    yield "## Stages"
    yield ""
    yield "µs of CPU an event, each stage by itself: the least of some passes on one thread; the bulk client"
    yield "once, with all its threads. Three events of four go the short way instead of the three before it."
    yield ""
    yield f"| stage | {' | '.join(made)} |"
    yield f"|---|{'---|' * len(made)}"
    for name, cost in received.items():
        yield f"| receive, {name} | {cost:.1f} |{' |' * (len(made) - 1)}"
    for stage in made["simulated"]:
        yield f"| {stage} | {' | '.join(f'{costs[stage]:.1f}' for costs in made.values())} |"
    yield f"| bulk client | {sent:.1f} |{' |' * (len(made) - 1)}"
    yield from _machine()


def latencies(rig: Rig, quick: bool) -> Iterable[str]:
    """Frame to acknowledgement, and to the search; a quiet stream."""
    seconds = 10 if quick else 60
    at = latency.latency(rig, 1000, seconds)
    share = latency.quiet(rig, 100, seconds)
    yield "## Latency and cost when quiet"
    yield ""
    yield "Default options: `--flush 1s`, `--refresh 5s`."
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield f"| 1,000 events/s, made to acknowledged, p50 of {at.events:,} | {at.p50 * 1000:,.0f} ms |"
    yield f"| the same, p99 | {at.p99 * 1000:,.0f} ms |"
    yield f"| the same, until a search finds it, median | {at.searchable * 1000:,.0f} ms |"
    yield f"| 100 events/s, CPU of the worker | {share:.1%} of a core |"
    yield from _machine()


def growing(rig: Rig, quick: bool) -> Iterable[str]:
    """Rate and memory while the index grows."""
    marks = [100_000, 200_000] if quick else [1_000_000, 5_000_000, 10_000_000]
    yield "## Growth"
    yield ""
    yield "One run at full speed into one index; the rate is that since the line before."
    yield ""
    yield "| documents | events/s | peak RSS of the worker | index on disk |"
    yield "|---|---|---|---|"
    for mark in latency.growth(rig, marks):
        yield (
            f"| {mark.documents:,} | {mark.rate:,.0f} | {mark.rss / 1e6:.0f} MB | {mark.store / 1e9:.2f} GB |"
        )
    yield from _machine()


PARTS: dict[str, Callable[[Rig, bool], Iterable[str]]] = {
    "sides": sides,
    "stages": single_stages,
    "latency": latencies,
    "growth": growing,
}
_USUAL = "sides, stages, latency"


def _median(rounds: Sequence[Round]) -> float:
    return statistics.median(one.rate for one in rounds)


def _of(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return form.format(statistics.median(known)) if known else ""


def _machine() -> Iterable[str]:
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    load = os.getloadavg()[2]
    yield ""
    yield (
        f"{datetime.now(UTC):%Y-%m-%d}, version {__version__}, Python {platform.python_version()}, "
        f"{psutil.cpu_count()} cores ({cpu}), {psutil.virtual_memory().total / 2**30:.0f} GB; "
        f"load of the last 15 minutes {load:.1f}."
    )


def _write(part: str, lines: Sequence[str]) -> None:
    """Put a section into the document, in place of the one before."""
    begin, end = f"<!-- {part} -->\n", f"<!-- /{part} -->\n"
    text = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else _HEAD
    section = begin + "\n".join(lines) + "\n" + end
    if begin in text:
        text = text[: text.index(begin)] + section + text[text.index(end) + len(end) :]
    else:
        text += "\n" + section
    DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
