"""The client of the archive against a simulated server, and against recorded and hostile responses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from slurp.archive import client as client_module
from slurp.archive.blocks import DamagedArchive, Row, RowKind, decompress, rows
from slurp.archive.client import ArchiveError, Client, KeyRequired, NotFound, Unavailable
from slurp.archive.frames import frame_of
from slurp.archive.plans import Entry, Filter, InvalidPlan, Page, files_of, page_of
from slurp.archive.segments import Segment
from slurp.embedded.node import free_port
from slurp.events.frames import parse
from slurp.events.identity import event_id
from slurp.simulator.jetstream import Simulator
from slurp.simulator.options import ServerOptions
from tests.conftest import SHARED
from tests.hostile_server import Hostile

RECORDED = SHARED / "archive/http"
OPTIONS = ServerOptions(archive_segment=200, archive_block=32)


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(seed=4, server=OPTIONS) as simulator:
        yield simulator.generate(1500)


@pytest.fixture
def client(simulator: Simulator) -> Iterator[Client]:
    client = Client(simulator.url)
    yield client
    client.close()


def read_file(path: Path) -> list[Row]:
    with path.open("rb") as file:
        segment = Segment(file)
        return [row for entry in segment.blocks for row in rows(decompress(segment.read(entry)))]


def read_entry(client: Client, entry: Entry, folder: Path) -> list[Row]:
    if not entry.blocks:
        client.download(entry.name, folder / entry.name)
        return read_file(folder / entry.name)
    numbers = [number for first, last in entry.blocks for number in range(first, last + 1)]
    return [row for number in numbers for row in rows(decompress(client.block(entry.name, number)))]


def ids(found: list[Row]) -> list[str]:
    return [event_id(parse(frame)) for row in found if (frame := frame_of(row)) is not None]


def test_the_archive_has_the_events_of_the_stream(
    simulator: Simulator, client: Client, tmp_path: Path
) -> None:
    page = client.plan(0)
    assert page.sealed_tip == page.through == simulator.archive.sealed_tip == 1200
    assert all(not entry.blocks for entry in page.entries)
    found = [row for entry in page.entries for row in read_entry(client, entry, tmp_path)]
    assert ids(found) == [event_id(parse(frame)) for frame in simulator.frames[:1200]]
    assert client.received == sum(path.stat().st_size for path in tmp_path.glob("*.jss"))
    assert len(list(tmp_path.glob("*.jss"))) == 6


def test_a_plan_of_some_events_names_the_blocks_with_them(
    simulator: Simulator, client: Client, tmp_path: Path
) -> None:
    page = client.plan(390, 500)
    assert page.sealed_tip == page.through == 500
    found = [row for entry in page.entries for row in read_entry(client, entry, tmp_path)]
    assert any(entry.blocks for entry in page.entries)
    assert {*range(391, 501)} <= {row.seq for row in found}
    did = found[0].did
    mine = [row for row in simulator.archive.rows() if row.did == did]
    page = client.plan(0, filter=Filter(kinds=["commit"], dids=[did]))
    selected = [row for entry in page.entries for row in read_entry(client, entry, tmp_path)]
    assert {row.seq for row in mine if row.collection} <= {row.seq for row in selected}


def test_a_plan_has_pages_up_to_a_fixed_end(simulator: Simulator, client: Client) -> None:
    simulator.archive.page = 2
    page = client.plan(0)
    tip, entries = page.sealed_tip, [*page.entries]
    simulator.generate(1000)
    while page.through < tip:
        page = client.plan(page.through, tip)
        entries += page.entries
    assert [entry.name for entry in entries] == [f"seg_{number:010}.jss" for number in range(6)]
    assert simulator.archive.sealed_tip > tip


def test_the_list_of_files_has_their_times(
    simulator: Simulator, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_LIST_LIMIT", 4)
    files = list(client.files())
    archived = simulator.archive.rows()
    assert [(file.min_seq, file.max_seq) for file in files] == [
        (first, first + 199) for first in range(1, 1200, 200)
    ]
    assert files[0].min_witnessed_at == min(row.witnessed_at for row in archived[:200])
    assert files[-1].max_witnessed_at == max(row.witnessed_at for row in archived[-200:])


def test_a_download_that_is_cut_off_is_resumed(simulator: Simulator, client: Client, tmp_path: Path) -> None:
    path = tmp_path / "seg_0000000000.jss"
    simulator.archive.cuts += [1000, 0, 2000]
    reasons = []
    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            client.download(path.name, path)
        reasons.append(str(caught.value))
    client.download(path.name, path)
    assert len(read_file(path)) == 200
    # No byte twice.
    assert client.received == path.stat().st_size
    assert "after 1,000 of" in reasons[0]
    ranges = [headers.get("Range") for _, _, headers in simulator.archive.requests]
    assert ranges == [None, "bytes=1000-", "bytes=1000-", "bytes=3000-"]


def test_a_file_that_was_compacted_meanwhile_is_read_again(
    simulator: Simulator, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "seg_0000000000.jss"
    simulator.archive.cuts.append(5000)
    with pytest.raises(Unavailable):
        client.download(path.name, path)
    before = [row.seq for row in simulator.archive.rows()]
    assert simulator.archive.compact()
    client.download(path.name, path)
    found = read_file(path)
    assert found == [row for row in simulator.archive.rows() if row.seq <= 200]
    assert len(found) < len([seq for seq in before if seq <= 200])


def test_a_complete_file_is_not_read_again(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "seg_0000000000.jss"
    client.download(path.name, path)
    received = client.received
    client.download(path.name, path)
    assert client.received == received
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(Unavailable, match="read again"):
        client.download(path.name, path)
    client.download(path.name, path)
    assert len(read_file(path)) == 200


def test_the_key_goes_to_the_endpoints_that_want_one(simulator: Simulator, tmp_path: Path) -> None:
    simulator.archive.key = "secret key"
    without = Client(simulator.url)
    for call in (
        lambda: without.plan(0),
        lambda: without.block("seg_0000000000.jss", 0),
        lambda: without.download("seg_0000000000.jss", tmp_path / "a.jss"),
    ):
        with pytest.raises(KeyRequired, match="HTTP 401, AuthRequired, invalid or missing bearer token"):
            call()
    client = Client(simulator.url, key="secret key")
    assert client.plan(0).entries
    assert client.block("seg_0000000000.jss", 0)
    client.download("seg_0000000000.jss", tmp_path / "seg_0000000000.jss")
    assert list(client.files())
    sent = {
        path.rsplit(".", 1)[1]: headers.get("Authorization")
        for path, _, headers in simulator.archive.requests
    }
    assert sent == {
        "planSnapshot": "Bearer secret key",
        "getBlock": "Bearer secret key",
        "getSegment": "Bearer secret key",
        "listSegments": None,
    }


def response(status: int, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    fixed = {"Connection": "close", "Content-Length": str(len(body))}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    lines += [f"{name}: {value}" for name, value in (fixed | named).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def test_a_redirect_is_not_followed(simulator: Simulator) -> None:
    target = f"http://127.0.0.1:{simulator.port}/xrpc/network.bsky.jetstream.planSnapshot"
    with (
        Hostile(answer=response(307, Location=target)) as server,
        pytest.raises(ArchiveError, match="HTTP 307"),
    ):
        Client(server.url, key="secret key").plan(0)
    assert not simulator.archive.requests


@pytest.mark.parametrize(
    ("status", "headers", "wait"),
    [
        (429, {"Retry_After": "17"}, 17),
        (429, {"RateLimit_Reset": "30", "Retry_After": "5"}, 30),
        (503, {}, 0),
        (408, {"Retry_After": "soon"}, 0),
        (500, {"Retry_After": "99999999999"}, 3600),
        (503, {"Retry_After": "Wed, 21 Oct 2099 07:28:00 GMT"}, 3600),
        (503, {"Retry_After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
    ],
)
def test_a_failure_that_may_pass_names_the_wait(status: int, headers: dict[str, str], wait: float) -> None:
    with (
        Hostile(answer=response(status, b"", **headers)) as server,
        pytest.raises(Unavailable, match=f"planSnapshot: HTTP {status}") as caught,
    ):
        Client(server.url).plan(0)
    assert caught.value.wait == wait


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, NotFound), (405, NotFound), (501, NotFound), (403, KeyRequired), (400, ArchiveError)],
)
def test_other_failures_are_final(status: int, kind: type[ArchiveError]) -> None:
    with (
        Hostile(answer=response(status, b'{"error":"Name","message":"text\\u0007"}')) as server,
        pytest.raises(kind, match=rf"HTTP {status}, Name, text\?") as caught,
    ):
        Client(server.url).plan(0)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "answer",
    [
        *(b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_a_broken_response_may_pass(answer: bytes, tmp_path: Path) -> None:
    with Hostile(answer=answer) as server:
        client = Client(server.url)
        with pytest.raises(Unavailable):
            client.plan(0)
        with pytest.raises(ArchiveError):
            client.download("seg_0000000000.jss", tmp_path / "seg_0000000000.jss")


def test_nothing_listens() -> None:
    with pytest.raises(Unavailable, match="planSnapshot: ConnectionError"):
        Client(f"ws://127.0.0.1:{free_port()}").plan(0)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"Content_Length": str(2**31)}, "more than 1,073,741,824"),
        ({"Content_Length": "many"}, "without its length|ProtocolError|InvalidHeader"),
    ],
)
def test_a_file_that_is_too_large_is_refused(headers: dict[str, str], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "seg_0000000000.jss"
    with Hostile(answer=response(200, b"x", **headers)) as server, pytest.raises(ArchiveError, match=reason):
        Client(server.url).download(path.name, path)
    assert not path.exists()


def test_a_download_stops_when_the_worker_does(simulator: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "seg_0000000000.jss"
    with pytest.raises(Unavailable, match="stopped"):
        Client(simulator.url).download(path.name, path, may_continue=lambda: False)


def test_a_damaged_block_is_found(simulator: Simulator, client: Client, tmp_path: Path) -> None:
    simulator.archive.damage()
    path = tmp_path / "seg_0000000000.jss"
    client.download(path.name, path)
    with pytest.raises(DamagedArchive):
        read_file(path)


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded archive is not beside the project")
def test_recorded_plans_and_lists_are_understood() -> None:
    plans, lists = 0, 0
    for path in RECORDED.glob("*.json"):
        exchange = json.loads(path.read_bytes())["response"]
        if exchange["status"] != HTTPStatus.OK or path.name.startswith(("segment", "block")):
            continue
        if path.name.startswith("plan"):
            page = page_of(exchange["body"])
            assert page.through <= page.sealed_tip
            assert len(page.entries) == len(exchange["body"]["segments"])
            plans += 1
        else:
            files, _ = files_of(exchange["body"])
            assert len(files) == len(exchange["body"]["segments"])
            lists += 1
    assert plans >= 20
    assert lists >= 4


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded archive is not beside the project")
def test_recorded_errors_are_understood() -> None:
    for path in RECORDED.glob("error_*.json"):
        exchange = json.loads(path.read_bytes())["response"]
        body = exchange.get("body", "")
        text = body if isinstance(body, str) else json.dumps(body)
        answer = response(exchange["status"], text.encode())
        with (
            Hostile(answer=answer) as server,
            pytest.raises(ArchiveError, match=f"HTTP {exchange['status']}") as caught,
        ):
            Client(server.url).plan(0)
        if isinstance(body, dict):
            assert body["error"] in str(caught.value)


VALID: dict[str, Any] = {
    "sealedTipSeq": 10,
    "plannedThroughSeq": 10,
    "segments": [
        {"name": "seg_1.jss", "checksum": "0" * 16, "minSeq": 1, "maxSeq": 5, "mode": "segment"},
        {
            "name": "seg_2.jss",
            "checksum": "0" * 16,
            "minSeq": 6,
            "maxSeq": 10,
            "mode": "blocks",
            "blocks": [{"first": 0, "last": 0}, {"first": 2, "last": 3}],
        },
    ],
}


def test_a_valid_plan_is_a_page() -> None:
    assert page_of(VALID) == Page(
        10, 10, (Entry("seg_1.jss", "0" * 16, 1, 5), Entry("seg_2.jss", "0" * 16, 6, 10, ((0, 0), (2, 3))))
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("", None),
        ("", []),
        ("sealedTipSeq", None),
        ("sealedTipSeq", -1),
        ("sealedTipSeq", True),
        ("sealedTipSeq", 2**63),
        ("plannedThroughSeq", "10"),
        ("segments", None),
        ("segments", {}),
        ("segments.0", None),
        ("segments.0.name", "../../etc/passwd"),
        ("segments.0.name", "seg_1.jss\n"),
        ("segments.0.name", None),
        ("segments.0.checksum", "x"),
        ("segments.0.mode", "all"),
        ("segments.0.maxSeq", 11),
        ("segments.0.minSeq", 1.5),
        ("segments.1.blocks", None),
        ("segments.1.blocks", []),
        ("segments.1.blocks.0", 7),
        ("segments.1.blocks.1.last", 1),
        ("segments.1.blocks.1.last", 10**9),
    ],
)
def test_an_invalid_plan_is_refused(path: str, value: Any) -> None:
    plan = json.loads(json.dumps({"plan": VALID}))
    target, *rest = [plan], *filter(None, path.split("."))
    keys: list[Any] = ["plan", *(int(one) if re.fullmatch("[0-9]+", one) else one for one in rest)]
    inner: Any = target[0]
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    with pytest.raises(InvalidPlan):
        page_of(plan["plan"])


def test_a_server_without_an_archive() -> None:
    with Simulator(seed=4) as simulator, pytest.raises(NotFound):
        Client(simulator.url).plan(0)


def test_a_resync_is_told_apart() -> None:
    """Only the archive says which creates follow a sync."""
    rev = "3m4kzq2rjzs2x"
    with Simulator(seed=4, server=ServerOptions(archive_segment=2, archive_block=2)) as simulator:
        simulator.publish(
            [
                {
                    "did": "did:plc:a",
                    "kind": "sync",
                    "sync": {"rev": rev, "time": "", "did": "did:plc:a", "seq": 1},
                },
                {
                    "did": "did:plc:a",
                    "kind": "commit",
                    "commit": {
                        "operation": "create",
                        "rev": rev,
                        "collection": "a.b.c",
                        "rkey": "r",
                        "record": {"$type": "a.b.c"},
                        "cid": "bafyrei",
                    },
                },
            ]
        )
        simulator.generate(10)
        assert [row.kind for row in simulator.archive.rows()][:2] == [RowKind.SYNC, RowKind.RESYNC_CREATE]


def test_a_body_longer_than_its_length_is_refused(tmp_path: Path) -> None:
    """With chunks the HTTP library ignores the length."""
    body = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"64\r\n"
        + bytes(100)
    )
    path = tmp_path / "seg_0000000000.jss"
    with Hostile(answer=body + b"\r\n0\r\n\r\n") as server, pytest.raises(ArchiveError, match="longer than"):
        Client(server.url).download(path.name, path)
    assert not path.exists() or path.stat().st_size <= 10


def test_a_date_beyond_all_times_is_no_wait() -> None:
    answer = response(503, Retry_After="Mon, 01 Jan 99999999999999999999 00:00:00 GMT")
    with Hostile(answer=answer) as server, pytest.raises(Unavailable) as caught:
        Client(server.url).plan(0)
    assert caught.value.wait == 0


def test_a_list_of_files_that_does_not_end_is_refused() -> None:
    file = {"name": "seg_1.jss", "minSeq": 1, "maxSeq": 5, "minWitnessedAt": 1, "maxWitnessedAt": 2}
    answer = response(200, json.dumps({"segments": [file], "cursor": "x"}).encode())
    with Hostile(answer=answer) as server, pytest.raises(ArchiveError, match="does not end"):
        list(Client(server.url).files())
