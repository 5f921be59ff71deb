"""Sources of the simulator's events: tests, files and the generator; and its command line."""

from __future__ import annotations

import contextlib
import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from slurp.events import tid
from slurp.simulator import protocol_v2
from slurp.simulator.__main__ import main
from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import ServerOptions
from tests.harness import create_connection

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"
ROOT = Path(__file__).parents[1]
EVENT = {"did": "did:plc:a", "kind": "identity", "identity": {"did": "did:plc:a"}}


@contextlib.contextmanager
def connect(url: str) -> Iterator[Any]:
    client: Any = create_connection(url, timeout=5, skip_utf8_validation=True)
    try:
        yield client
    finally:
        client.shutdown()


def read(url: str, count: int) -> list[bytes]:
    with connect(url) as client:
        return [client.recv_data()[1] for _ in range(count)]


class TestPublish:
    def test_dictionaries_get_time_and_cursor(self, jetstream: Simulator) -> None:
        before = int(time.time() * 1e6)
        jetstream.publish([EVENT, EVENT | {"cursor": 50, "time_us": 7}, EVENT])
        first, second, third = map(orjson.loads, jetstream.frames)
        assert list(first) == ["did", "time_us", "cursor", "kind", "identity"]
        assert first["time_us"] >= before
        assert (first["cursor"], second["cursor"], third["cursor"]) == (1, 50, 51)
        assert second["time_us"] == 7

    def test_bytes_are_published_unchanged(self, jetstream: Simulator) -> None:
        frame = b'{ "kind":"new", "did":"did:plc:a",  "time_us":1795464168637452}'
        jetstream.publish([frame])
        assert jetstream.frames == [frame]
        assert read(jetstream.subscribe_url + "?cursor=0", 1) == [frame]

    @pytest.mark.parametrize("frame", [b"{}", b"no JSON", b"[]", b'{"did":"did:plc:a","time_us":"now"}'])
    def test_frames_that_are_not_events_are_rejected(self, jetstream: Simulator, frame: bytes) -> None:
        with pytest.raises(ValueError):
            jetstream.publish([frame])
        assert jetstream.frames == []


class TestGenerate:
    def test_the_same_seed_and_clock_give_the_same_frames(self) -> None:
        def frames(seed: int) -> list[bytes]:
            return Simulator(seed=seed, clock=lambda: 1_795_464_168.5).generate(3000).frames

        assert frames(1) == frames(1) != frames(2)

    def test_history_is_spread_over_its_span_and_ends_now(self, jetstream: Simulator) -> None:
        jetstream.generate(2500, span=3600)
        now = int(time.time() * 1e6)
        times = [orjson.loads(frame)["time_us"] for frame in jetstream.frames]
        assert times == sorted(times)
        assert times[0] == pytest.approx(now - 3600e6, abs=10e6)
        assert times[-1] == pytest.approx(now, abs=10e6)
        repeats = sum(a == b for a, b in itertools.pairwise(times))
        assert 0.5 < repeats / len(times) < 0.8

    def test_more_history_follows_the_newest_event(self, jetstream: Simulator) -> None:
        jetstream.generate(100, span=10).generate(100, span=3600)
        times = [orjson.loads(frame)["time_us"] for frame in jetstream.frames]
        assert times == sorted(times)
        assert [orjson.loads(frame)["cursor"] for frame in jetstream.frames] == list(range(1, 201))


class TestRate:
    def test_events_are_generated_at_the_requested_rate(self, jetstream: Simulator) -> None:
        jetstream.run_at(2000)
        time.sleep(1.5)
        jetstream.pause()
        count = len(jetstream.frames)
        assert count == pytest.approx(3000, rel=0.2)
        time.sleep(0.1)
        assert len(jetstream.frames) == count

    def test_live_events_happen_now(self, jetstream: Simulator) -> None:
        with connect(jetstream.subscribe_url) as client:
            jetstream.run_at(200)
            lags = [time.time() - orjson.loads(client.recv_data()[1])["time_us"] / 1e6 for _ in range(100)]
        assert max(lags) < 0.5

    def test_a_limit_ends_the_generation(self, jetstream: Simulator) -> None:
        jetstream.run_at(5000, limit=500)
        jetstream.wait_until(lambda j: not j.producing)
        assert len(jetstream.frames) == 500

    def test_at_rate_zero_the_slowest_subscriber_sets_the_pace(self, jetstream: Simulator) -> None:
        jetstream.run_at(0)
        time.sleep(0.1)
        assert jetstream.frames == []
        cursors = [orjson.loads(f)["cursor"] for f in read(jetstream.subscribe_url, 30_000)]
        assert cursors == list(range(1, 30_001))
        assert len(jetstream.frames) < 200_000


class TestFile:
    def write(self, path: Path, events: list[dict[str, Any]]) -> Path:
        path.write_bytes(b"".join(orjson.dumps(event) + b"\n" for event in events))
        return path

    @pytest.mark.parametrize("name", ["jetstream-v1-real.jsonl", "jetstream-v1-simulated.jsonl"])
    def test_a_corpus_is_served_unchanged(self, jetstream: Simulator, name: str) -> None:
        path = CORPUS / name
        if not path.exists():
            pytest.skip(f"{path} does not exist")
        lines = path.read_bytes().splitlines()
        jetstream.load(path)
        assert read(jetstream.subscribe_url + "?cursor=0", len(lines)) == lines

    def test_time_cursors_work_with_old_events(self, jetstream: Simulator, tmp_path: Path) -> None:
        events = [EVENT | {"time_us": 1_700_000_000_000_000 + n} for n in range(10)]
        jetstream.load(self.write(tmp_path / "old.jsonl", events))
        got = read(jetstream.subscribe_url + "?cursor=1700000000000006", 4)
        assert got == jetstream.frames[6:]

    NOT_EVENTS = (
        b"{}",
        b"no JSON",
        b"\xff\xfe",
        b"[1]",
        b"[" * 2000,
        b'{"did":"did:plc:a","time_us":' + b"9" * 30 + b',"kind":"identity"}',
        b'{"did":"did:plc:a","time_us":1,"cursor":-1,"kind":"commit","commit":"?"}',
        b'{"did":"did:plc:a","time_us":1,"kind":"commit","commit":{"collection":"a.b.c"}}',
        b'{"did":"did:plc:a","time_us":1,"kind":"sync","sync":[]}',
        b'{"did":"did:plc:a","time_us":1,"kind":"new"}',
        b'{"$type":"message","payload":{"$type":"network.bsky.jetstream.subscribeEvents#new"}}',
    )

    @pytest.mark.parametrize("path", ["/subscribe", protocol_v2.PATH])
    @pytest.mark.parametrize("restamp", [False, True])
    @pytest.mark.parametrize("rate", [0.0, 1e5])
    def test_lines_that_are_not_events_are_sent_unchanged(
        self,
        jetstream: Simulator,
        tmp_path: Path,
        path: str,
        restamp: bool,
        rate: float,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Clients need them to test their dead letters."""
        event = orjson.dumps(EVENT | {"time_us": 1_700_000_000_000_000})
        lines = [event, b"", *self.NOT_EVENTS, event]
        file = tmp_path / "odd.jsonl"
        file.write_bytes(b"\r\n".join(lines))
        jetstream.load(file, restamp=restamp, rate=rate)
        jetstream.wait_until(lambda one: len(one.frames) == len(lines) - 1)
        got = read(f"{jetstream.url}{path}?cursor=0", len(lines) - 1)
        kept = [*self.NOT_EVENTS] if path == "/subscribe" and not restamp else [*self.NOT_EVENTS[:5]]
        assert got[1 : 1 + len(kept)] == kept
        logged = [one.getMessage() for one in caplog.records if "not an event" in one.getMessage()]
        assert logged[0] == f"{file}:3 is not an event; it and other such lines are sent unchanged"

    def test_time_cursors_ignore_lines_without_events(self, jetstream: Simulator, tmp_path: Path) -> None:
        begin = 1_700_000_000_000_000
        file = tmp_path / "odd.jsonl"
        lines = [orjson.dumps(EVENT | {"time_us": begin + n}) for n in range(4)]
        file.write_bytes(b"\n".join([*lines[:2], b"?", *lines[2:]]))
        jetstream.load(file)
        assert read(f"{jetstream.subscribe_url}?cursor={begin + 2}", 2) == lines[2:]

    def test_timestamp_imports_do_not_change_such_lines(self, jetstream: Simulator, tmp_path: Path) -> None:
        file = tmp_path / "odd.jsonl"
        file.write_bytes(b"\n".join(self.NOT_EVENTS))
        jetstream.generate(100)
        assert jetstream.import_timestamps(100, 1.0)
        jetstream.load(file)
        jetstream.import_timestamps(100, 1.0)
        assert jetstream.frames[100:] == [*self.NOT_EVENTS]

    def test_restamping_shifts_all_times_equally(self, jetstream: Simulator, tmp_path: Path) -> None:
        then = 1_700_000_000_000_000
        commit = {
            "rev": tid.from_micros(then - 1000, 77),
            "operation": "create",
            "collection": "app.bsky.feed.post",
            "rkey": "3kdhwz6cnmk2a",
            "record": {"createdAt": "2023-11-14T22:13:19Z", "text": "at 22:13"},
        }
        odd = commit | {"rev": "no tid", "record": {"createdAt": "yesterday"}}
        events: list[dict[str, Any]] = [
            {"did": "did:plc:a", "time_us": then, "cursor": 5, "kind": "commit", "commit": commit},
            {"did": "did:plc:a", "time_us": then + 60_000_000, "kind": "commit", "commit": odd},
        ]
        jetstream.load(self.write(tmp_path / "old.jsonl", events), restamp=True)
        first, second = map(orjson.loads, jetstream.frames)
        now = time.time() * 1e6
        assert second["time_us"] == pytest.approx(now, abs=5e6)
        assert second["time_us"] - first["time_us"] == 60_000_000
        micros = tid.to_micros(first["commit"]["rev"])
        assert micros is not None
        assert micros == first["time_us"] - 1000
        assert first["commit"]["rev"] == tid.from_micros(micros, 77)
        assert first["commit"]["record"]["createdAt"][:4] != "2023"
        assert (first["cursor"], first["commit"]["rkey"]) == (5, commit["rkey"])
        assert first["commit"]["record"]["text"] == "at 22:13"
        assert second["commit"] == odd

    def test_a_file_can_be_served_at_a_rate(self, jetstream: Simulator, tmp_path: Path) -> None:
        events = [EVENT | {"time_us": 1_700_000_000_000_000 + n} for n in range(200)]
        begin = time.monotonic()
        jetstream.load(self.write(tmp_path / "slow.jsonl", events), rate=400, restamp=True)
        jetstream.wait_until(lambda j: len(j.frames) == 200)
        assert 0.35 < time.monotonic() - begin < 1.5
        assert all(abs(time.time() - orjson.loads(f)["time_us"] / 1e6) < 5 for f in jetstream.frames)
        jetstream.wait_until(lambda j: not j.producing)

    def test_a_missing_file_is_an_error(self, jetstream: Simulator) -> None:
        with pytest.raises(FileNotFoundError):
            jetstream.load("nowhere.jsonl", rate=10)


def test_memory_is_bounded() -> None:
    with Simulator(server=ServerOptions(retain_bytes=500_000)) as jetstream:
        jetstream.generate(5000)
        assert len(jetstream.frames) < 1000
        assert jetstream.published == 5000
        (first,) = read(jetstream.subscribe_url + "?cursor=1", 1)
        assert first == jetstream.frames[0]


def test_stored_events_are_sent_at_fifty_thousand_per_second(jetstream: Simulator) -> None:
    """A loose limit, for busy machines: the usual rate is several times higher."""
    count = 30_000
    jetstream.generate(count)
    size, wanted = 0, sum(map(len, jetstream.frames))
    with connect(jetstream.subscribe_url + "?cursor=0") as client:
        begin = time.monotonic()
        while size < wanted:
            size += len(client.sock.recv(1 << 20))
        rate = count / (time.monotonic() - begin)
    assert rate > 50_000


class TestCommand:
    def start(self, *arguments: str) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "slurp.simulator", "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert process.stdout is not None
        return process, process.stdout.readline().split()[-1]

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_closes_connections_with_1001(self, number: signal.Signals) -> None:
        process, url = self.start("--rate", "500")
        try:
            with connect(url) as client:
                assert orjson.loads(client.recv_data()[1])["did"]
                process.send_signal(number)
                opcode, data = 0, b""
                while opcode != 8:
                    opcode, data = client.recv_data()
            assert data == b"\x03\xe9server shutting down"
            assert process.wait(5) == 0
        finally:
            process.kill()
            process.wait()

    def test_after_its_count_it_keeps_running_idle(self) -> None:
        process, url = self.start("--rate", "0", "--count", "300")
        try:
            assert len(read(url + "?cursor=0", 300)) == 300
            time.sleep(0.2)
            assert process.poll() is None
            assert psutil.Process(process.pid).cpu_percent(0.3) < 20
        finally:
            process.kill()
            process.wait()

    def test_the_help_lists_options_and_explains_count(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["--help"])
        text = capsys.readouterr().out
        assert "keeps running after the last event" in text
        for option in ("--rate", "--port", "--seed", "--file", "--restamp", "--lookback", "--people"):
            assert option in text

    @pytest.mark.parametrize(
        "arguments",
        [("--rate", "-1"), ("--rate", "many"), ("--lookback", "36"), ("--people", "1"), ("--restamp",)],
    )
    def test_invalid_usage_is_exit_code_2(
        self, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
    ) -> None:
        try:
            code = main(["--port", "0", *arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        assert code == 2
        assert capsys.readouterr().err

    def test_a_port_in_use_is_exit_code_1(
        self, jetstream: Simulator, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["--port", str(jetstream.port)]) == 1
        assert "in use" in capsys.readouterr().err
