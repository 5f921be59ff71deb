"""The dialer: which protocol it uses, its fallbacks, expired cursors, notices and resyncs. Real sockets."""

from __future__ import annotations

import logging

import pytest

from slurp.config import parse as options
from slurp.events.frames import parse
from slurp.jetstream.dialer import Dialer
from slurp.jetstream.servers import probe_servers
from slurp.jetstream.subscription import Subscription
from slurp.simulator import protocol_v2
from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import ServerOptions
from tests.harness import until
from tests.test_simulator_v2 import publish_resync
from tests.v2_reading import ZSTD, events, paths, published, reading


class TestWhichWire:
    def test_auto_reads_v2(self, jetstream: Simulator, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        jetstream.generate(1000)
        with reading(jetstream) as run:
            until(lambda: len(run.frames) == 1000)
        assert events(run) == published(jetstream)
        assert paths(jetstream) == ["subscribeEvents"]
        assert "reading from cursor 0, protocol v2" in caplog.text

    def test_auto_falls_back_to_v1_and_remembers_it(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        with Simulator(port=0, seed=1, protocols="v1") as jetstream:
            jetstream.generate(1000)
            jetstream.faults.cut_after(500)
            with reading(jetstream) as run:
                until(lambda: run.frames and run.frames[-1] == jetstream.frames[-1])
            assert paths(jetstream) == ["subscribeEvents", "subscribe", "subscribe"]
            assert set(run.frames) == set(jetstream.frames)
        assert caplog.text.count("has no v2 protocol (HTTP 404), reading v1") == 1

    @pytest.mark.parametrize("status", [403, 405, 426, 501])
    def test_statuses_that_mean_that_there_is_no_v2(self, jetstream: Simulator, status: int) -> None:
        jetstream.generate(10)
        jetstream.faults.refuse(status)
        with reading(jetstream) as run:
            until(lambda: len(run.frames) == 10)
        assert paths(jetstream) == ["subscribeEvents", "subscribe"]

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_v2_is_retried_on_a_failing_server(self, jetstream: Simulator, status: int) -> None:
        jetstream.generate(10)
        jetstream.faults.refuse(status)
        with reading(jetstream) as run:
            until(lambda: len(run.frames) == 10)
        assert paths(jetstream) == ["subscribeEvents", "subscribeEvents"]

    @pytest.mark.parametrize("page", ["<html>400 Bad Request</html>", '{"message": "InvalidRequest"}', ""])
    def test_a_400_of_a_gateway_falls_back_to_v1_for_one_connection(
        self, jetstream: Simulator, caplog: pytest.LogCaptureFixture, page: str
    ) -> None:
        jetstream.generate(10)
        jetstream.faults.refuse(400, page)
        with reading(jetstream) as run:
            until(lambda: len(run.frames) == 10)
            jetstream.faults.cut_after()
            until(lambda: len(jetstream.connections) == 3)
        assert paths(jetstream) == ["subscribeEvents", "subscribe", "subscribeEvents"]
        assert "rejects the v2 protocol (HTTP 400" in caplog.text

    def test_a_404_while_v1_fails_too_is_not_remembered(self, jetstream: Simulator) -> None:
        jetstream.generate(10)
        jetstream.faults.refuse(404, "<html>", times=2)
        with reading(jetstream) as run:
            until(lambda: len(run.frames) == 10)
        assert paths(jetstream) == ["subscribeEvents", "subscribe", "subscribeEvents"]

    def test_protocol_v2_never_falls_back(self) -> None:
        with Simulator(port=0, seed=1, protocols="v1") as jetstream:
            with reading(jetstream, options=("--protocol", "v2")):
                until(lambda: len(jetstream.connections) == 2)
            assert set(paths(jetstream)) == {"subscribeEvents"}

    def test_protocol_v1_never_tries_v2(self, jetstream: Simulator) -> None:
        jetstream.generate(10)
        with reading(jetstream, options=("--protocol", "v1")) as run:
            until(lambda: len(run.frames) == 10)
        assert paths(jetstream) == ["subscribe"]

    @pytest.mark.parametrize(("protocol", "path"), [("auto", "subscribe"), ("v2", "subscribeEvents")])
    def test_many_dids_need_v1_or_a_long_url(self, jetstream: Simulator, protocol: str, path: str) -> None:
        jetstream.generate(2000)
        wanted = sorted({event["did"] for event in published(jetstream)})[:500]
        dids = ("--protocol", protocol, "--dids", ",".join(wanted))
        with reading(jetstream, options=dids) as run:
            expected = [event for event in published(jetstream) if event["did"] in wanted]
            until(lambda: len(run.frames) == len(expected))
        assert events(run) == expected
        assert paths(jetstream) == [path]

    def test_filters_are_sent_as_parameters_of_v2(self, jetstream: Simulator) -> None:
        jetstream.generate(2000)
        filters = ("--protocol", "v2", "--collections", "app.bsky.graph.*,app.bsky.feed.post")
        with reading(jetstream, options=filters) as run:
            until(lambda: run.frames)
        assert jetstream.connections[0].params["collections"] == ["app.bsky.feed.post", "app.bsky.graph.*"]

    def test_a_server_with_only_v2_is_reachable(self) -> None:
        with Simulator(port=0, seed=1, protocols="v2") as jetstream:
            (one,) = probe_servers([jetstream.url])
        assert (len(one.times), one.v2) == (3, True)

    def test_the_url_of_the_endpoint_is_accepted_as_the_server(self) -> None:
        path = "/xrpc/network.bsky.jetstream.subscribeEvents"
        assert options(["--jetstream", f"wss://a.example{path}"], {}).jetstream == ("wss://a.example",)


class TestCursors:
    def test_a_cursor_of_v1_resumes_on_v2(self, jetstream: Simulator) -> None:
        jetstream.generate(10_000)
        with reading(jetstream, options=("--protocol", "v1")) as run:
            until(lambda: len(run.frames) == 10_000)
            known = run.batches[-1].position
        assert known is not None
        with reading(jetstream, start=known.cursor) as run:
            until(lambda: run.frames)
        assert events(run) == published(jetstream)[-1:]

    @pytest.mark.parametrize("compress", ["on", "off"])
    def test_after_an_expired_cursor_reading_continues_at_the_oldest_event(
        self, caplog: pytest.LogCaptureFixture, compress: str
    ) -> None:
        with Simulator(port=0, seed=1, server=ServerOptions(retain_bytes=300_000)) as jetstream:
            jetstream.generate(2000)
            with reading(jetstream, start=7, options=(*ZSTD[:3], compress)) as run:
                until(lambda: run.frames and events(run)[-1] == published(jetstream)[-1])
            assert events(run) == published(jetstream)
        oldest = events(run)[0]["cursor"]
        assert (
            f"no longer has the events after cursor 7, reading from its oldest event, cursor {oldest}"
            in caplog.text
        )
        assert "WARNING" in caplog.text

    def test_a_rewind_below_the_oldest_event_is_not_a_gap(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        with Simulator(port=0, seed=1, server=ServerOptions(retain_bytes=1_000_000)) as jetstream:
            jetstream.generate(5000)
            oldest = published(jetstream)[0]["cursor"]
            known = published(jetstream)[10]["cursor"]
            dialer = Dialer(options([], {}), Subscription("i"))
            stream = dialer.connect(jetstream.url, 1, known)
            stream.connection.shutdown()
        assert stream.cursor == oldest
        assert f"begins at cursor {oldest}, which is enough" in caplog.text
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    def test_an_unknown_oldest_cursor_is_requested_by_time(self, jetstream: Simulator) -> None:
        jetstream.generate(10)
        jetstream.faults.refuse(400, protocol_v2.error_body("CursorTooOld", "sorry"))
        with reading(jetstream, start=7) as run:
            until(lambda: len(run.frames) == 10)
        assert [record.cursor for record in jetstream.connections] == [None, 10**15]

    def test_repeated_rejections_as_too_old_end_the_attempt(self, jetstream: Simulator) -> None:
        jetstream.faults.refuse(400, protocol_v2.error_body("CursorTooOld", "floor 9"), times=4)
        jetstream.generate(10)
        with reading(jetstream, start=7, options=("--protocol", "v2")) as run:
            until(lambda: run.frames)
        assert len(jetstream.connections) == 5

    def test_a_notice_about_a_time_below_the_oldest_event_is_logged(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        server = ServerOptions(lookback=3600, retain_bytes=300_000)
        with Simulator(port=0, seed=1, server=server) as jetstream:
            jetstream.generate(2000)
            with reading(jetstream, start=10**15) as run:
                until(lambda: run.frames and events(run)[-1] == published(jetstream)[-1])
            assert events(run) == published(jetstream)
        assert "sent a notice: OutdatedCursor: cursor below the lookback floor" in caplog.text
        assert run.counters.snapshot().received == len(jetstream.frames), "a notice is not an event"


class TestNotices:
    @pytest.mark.parametrize("compress", ["on", "off"])
    def test_an_error_ends_the_stream_with_its_name(
        self, jetstream: Simulator, caplog: pytest.LogCaptureFixture, compress: str
    ) -> None:
        jetstream.generate(1000)
        jetstream.faults.error("ConsumerTooSlow", "far behind", after=700)
        with reading(jetstream, options=(*ZSTD[:3], compress)) as run:
            until(lambda: len({*run.frames}) == 1000)
        assert "ConsumerTooSlow: far behind; reconnecting" in caplog.text
        assert jetstream.connections[-1].cursor == 0, "rewound, as after any unclean end"

    def test_an_error_without_events_ends_the_stream(
        self, jetstream: Simulator, caplog: pytest.LogCaptureFixture
    ) -> None:
        jetstream.faults.garbage(protocol_v2.error("InternalError", "disk").decode())
        with reading(jetstream):
            until(lambda: len(jetstream.connections) == 2)
        assert "InternalError: disk; reconnecting" in caplog.text

    def test_an_informational_notice_is_logged_at_info(
        self, jetstream: Simulator, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        jetstream.generate(10)
        jetstream.faults.info("Weather", "rain", after=5)
        with reading(jetstream) as run:
            until(lambda: len(run.frames) == 10)
        (record,) = [record for record in caplog.records if "Weather: rain" in record.message]
        assert record.levelname == "INFO"


class TestResyncs:
    def test_batches_contain_the_known_syncs(self, jetstream: Simulator) -> None:
        publish_resync(jetstream)
        with reading(jetstream) as run:
            until(lambda: len(run.frames) == 14)
        assert dict(run.batches[-1].announced) == {("did:plc:resynced", "3mptbypluud2a"): 6}

    def test_the_resume_position_stays_at_the_sync_within_a_resync(self, jetstream: Simulator) -> None:
        publish_resync(jetstream, rows=900)
        with reading(jetstream, options=("--protocol", "v2", "--batch", "100")) as run:
            until(lambda: len(run.frames) == 911)
        for batch in run.batches:
            last = parse(batch.frames[-1])["cursor"]
            assert batch.position is not None
            assert batch.position.cursor == (6 if 6 <= last <= 906 else last)
        assert len(run.batches) >= 10
