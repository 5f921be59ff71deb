"""Generated events: distinct, well-formed, and reproducible by seed."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import orjson
import pytest

from slurp.events import tid
from slurp.simulator.event_generator import EventGenerator
from slurp.simulator.identifiers import tid as fast_tid
from slurp.simulator.options import NetworkOptions

COUNT = 30_000
START = 1_795_464_168_637_452
STEP = 1000
DAY = 86_400_000_000
Event = dict[str, Any]


def make(count: int, seed: int = 1, **options: Any) -> list[bytes]:
    generator = EventGenerator(seed, NetworkOptions(**options))
    return [generator.event(START + n * STEP, n + 1).frame for n in range(count)]


@pytest.fixture(scope="module")
def frames() -> list[bytes]:
    return make(COUNT)


@pytest.fixture(scope="module")
def events(frames: list[bytes]) -> list[Event]:
    return [orjson.loads(frame) for frame in frames]


@pytest.fixture(scope="module")
def commits(events: list[Event]) -> list[Event]:
    return [event for event in events if event["kind"] == "commit"]


def posts(events: list[Event]) -> list[Event]:
    return [
        event["commit"]["record"]
        for event in events
        if event["kind"] == "commit"
        and event["commit"]["collection"] == "app.bsky.feed.post"
        and "record" in event["commit"]
    ]


def test_the_same_seed_generates_the_same_events(frames: list[bytes]) -> None:
    assert make(2000) == frames[:2000]
    assert make(2000, seed=2) != frames[:2000]


def test_every_event_is_distinct(events: list[Event]) -> None:
    keys = set()
    for event in events:
        if event["kind"] == "commit":
            commit = event["commit"]
            names = ("collection", "rkey", "rev", "operation")
            keys.add((event["did"], *(commit[name] for name in names)))
        else:
            body = event[event["kind"]]
            keys.add((event["kind"], event["did"], body["time"], body.get("status"), body.get("handle")))
    assert len(keys) == COUNT


def test_events_within_the_same_microsecond_are_distinct() -> None:
    generator = EventGenerator(3, NetworkOptions(accounts=5))
    keys = set()
    for number in range(20_000):
        event = orjson.loads(generator.event(START, number).frame)
        body = event[event["kind"]]
        keys.add((event["did"], *(body.get(n) for n in ("collection", "rkey", "rev", "operation", "time"))))
    assert len(keys) == 20_000


def test_envelopes_have_the_keys_of_real_ones_in_their_order(events: list[Event]) -> None:
    for event in events:
        assert list(event) == ["did", "time_us", "cursor", "kind", event["kind"]]
    for event in events:
        if event["kind"] == "commit":
            head = ["rev", "operation", "collection", "rkey"]
            deleted = event["commit"]["operation"] == "delete"
            assert list(event["commit"]) == (head if deleted else [*head, "record", "cid"])
            assert deleted or event["commit"]["record"]["$type"] == event["commit"]["collection"]


def test_older_servers_send_no_cursor() -> None:
    assert all(b'"cursor":' not in frame for frame in make(500, cursors=False))


def test_proportions_are_those_of_the_real_network(frames: list[bytes], events: list[Event]) -> None:
    seen = Counter(
        (e["commit"]["collection"].rsplit(".", 1)[1], e["commit"]["operation"])
        if e["kind"] == "commit"
        else (e["kind"], "")
        for e in events
    )
    share = {key: count / COUNT for key, count in seen.items()}
    assert 0.45 < share["like", "create"] < 0.55
    assert 0.12 < share["post", "create"] < 0.16
    assert 0.08 < share["repost", "create"] < 0.12
    assert 0.08 < share["follow", "create"] < 0.12
    deletes, updates = (sum(n for key, n in share.items() if key[1] == name) for name in ("delete", "update"))
    assert 0.07 < deletes < 0.10
    assert 0.085 < deletes + updates + share["account", ""] < 0.115
    for key in (("identity", ""), ("account", ""), ("threadgate", "create"), ("starterpack", "create")):
        assert seen[key]
    assert 450 < sum(map(len, frames)) / COUNT < 650


def rev_offsets(commits: list[Event]) -> dict[str, list[int]]:
    """Return by how many microseconds each rev of each account is later than the event."""
    offsets = defaultdict(list)
    for event in commits:
        micros = tid.to_micros(event["commit"]["rev"])
        assert micros is not None
        offsets[event["did"]].append(micros - event["time_us"])
    return offsets


def test_the_revs_of_some_accounts_are_far_from_the_event_times() -> None:
    commits = [event for event in map(orjson.loads, make(COUNT, odd_revs=0.02)) if event["kind"] == "commit"]
    offsets = rev_offsets(commits)
    odd = {did: found for did, found in offsets.items() if any(abs(one) > DAY for one in found)}
    assert 0.015 < len(odd) / len(offsets) < 0.025
    assert 0.005 < sum(map(len, odd.values())) / len(commits) < 0.06
    assert {found[0] > 0 for found in odd.values()} == {False, True}
    for found in odd.values():
        # The clock of a server is wrong by the same amount all the time.
        assert max(found) - min(found) < 5_000_000


def test_revs_of_an_account_never_decrease() -> None:
    last: dict[str, str] = {}
    for event in (orjson.loads(frame) for frame in make(10_000, odd_revs=0.1)):
        if event["kind"] == "commit":
            rev = event["commit"]["rev"]
            assert rev >= last.get(event["did"], "")
            last[event["did"]] = rev


def test_backdated_events_are_rare_and_only_on_request(events: list[Event]) -> None:
    assert all(event["time_us"] == START + n * STEP for n, event in enumerate(events))
    moved = sum(orjson.loads(f)["time_us"] < START - DAY // 25 for f in make(5000, backdated=0.01))
    assert 20 < moved < 100


def test_deletes_refer_to_records_that_were_created(commits: list[Event]) -> None:
    alive: set[tuple[str, str, str]] = set()
    deletes = found = 0
    for event in commits:
        commit = event["commit"]
        key = (event["did"], commit["collection"], commit["rkey"])
        if commit["operation"] == "create":
            alive.add(key)
        elif commit["operation"] == "delete":
            deletes += 1
            found += key in alive or commit["rkey"] == "self"
            alive.discard(key)
    # A few posts, and the profiles of most accounts, are older than the first event.
    assert deletes > 1000
    assert found / deletes > 0.97


def test_facets_cover_the_bytes_of_their_text(events: list[Event]) -> None:
    kinds: Counter[str] = Counter()
    for post in posts(events):
        text = post["text"].encode()
        for facet in post.get("facets", []):
            piece = text[facet["index"]["byteStart"] : facet["index"]["byteEnd"]].decode()
            (feature,) = facet["features"]
            kind = feature["$type"].rsplit("#", 1)[1]
            kinds[kind] += 1
            if kind == "tag":
                assert piece == f"#{feature['tag']}"
            elif kind == "mention":
                assert piece.startswith("@")
            else:
                assert feature["uri"].startswith("https://" + piece.removesuffix("...")[:10])
    assert min(kinds["tag"], kinds["mention"], kinds["link"]) > 100


def test_posts_have_many_kinds_of_embeds_and_languages(events: list[Event]) -> None:
    langs: Counter[str] = Counter()
    embeds: Counter[str] = Counter()
    tags: Counter[str] = Counter()
    for post in posts(events):
        langs.update(post.get("langs", ()))
        embeds[post.get("embed", {}).get("$type", "")] += 1
        tags.update(
            feature["tag"]
            for facet in post.get("facets", [])
            for feature in facet["features"]
            if "tag" in feature
        )
        assert len(post["text"]) <= 300
    assert {"en", "ja", "pt", "de", "es", "ko", "fr", "ar"} <= set(langs)
    assert {"images", "external", "record", "recordWithMedia", "video", "gallery"} <= {
        name.rsplit(".", 1)[-1] for name in embeds
    }
    (_, most), *_, (_, least) = tags.most_common(25)
    assert most > 5 * least
    assert any("reply" in post for post in posts(events))
    assert any("labels" in post for post in posts(events))


def test_frames_contain_no_newlines(frames: list[bytes]) -> None:
    assert all(b"\n" not in frame for frame in frames)


@pytest.mark.parametrize(("micros", "clock"), [(0, 0), (START, 5), (START + 1, 1023), (2**53 - 1, 512)])
def test_the_fast_tid_equals_the_reference(micros: int, clock: int) -> None:
    assert fast_tid(micros, clock) == tid.from_micros(micros, clock)


def test_fewer_than_two_accounts_are_rejected() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        EventGenerator(1, NetworkOptions(accounts=1))


def test_via_refers_to_an_existing_record(commits: list[Event]) -> None:
    """Likes and reposts are via a repost of the same post, follows via a starter pack."""
    subjects: dict[str, Any] = {}
    via_kinds: Counter[tuple[str, str]] = Counter()
    total: Counter[str] = Counter()
    for event in commits:
        commit = event["commit"]
        record, collection = commit.get("record"), commit["collection"]
        if record is None:
            continue
        total[collection] += 1
        if (via := record.get("via")) is not None:
            cid, subject = subjects[via["uri"]]
            kind = via["uri"].split("/")[3]
            via_kinds[collection, kind] += 1
            assert via["cid"] == cid
            assert kind == "app.bsky.graph.starterpack" or subject == record["subject"]
        uri = f"at://{event['did']}/{collection}/{commit['rkey']}"
        subjects[uri] = commit["cid"], record.get("subject")
    like, repost, follow = "app.bsky.feed.like", "app.bsky.feed.repost", "app.bsky.graph.follow"
    assert via_kinds.keys() == {(like, repost), (repost, repost), (follow, "app.bsky.graph.starterpack")}
    for (collection, _), number in via_kinds.items():
        assert 0.02 < number / total[collection] < 0.1
