"""Golden vectors of `_id`: documents with these ids exist. A change would index every event twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from slurp.events.identity import event_id, identify, instant_us
from slurp.events.times import DAY_US, day_of, isoformat, parse_time

DID = "did:plc:wq4aajammjtxdomz3e23667t"
TIME_US = 1783175888085434
REV_US = 1783175887514441  # the time inside 3mptbypluud2a


def commit(time_us: int = TIME_US, **inner: Any) -> dict[str, Any]:
    fields = {
        "rev": "3mptbypluud2a",
        "operation": "create",
        "collection": "app.bsky.feed.like",
        "rkey": "3mptbyplj5d2a",
    }
    return {"did": DID, "time_us": time_us, "kind": "commit", "commit": fields | inner}


def sync(time_us: int = TIME_US) -> dict[str, Any]:
    fields = {"did": DID, "seq": 3, "time": "2026-07-04T14:38:07.112Z", "rev": "3mptbypluud2a"}
    return {"did": DID, "time_us": time_us, "kind": "sync", "sync": fields}


def identity(**inner: Any) -> dict[str, Any]:
    fields = {"did": DID, "seq": 1, "time": "2026-07-04T14:38:07.112Z", "handle": "alice.example"}
    return {"did": DID, "time_us": TIME_US, "kind": "identity", "identity": fields | inner}


def account(**inner: Any) -> dict[str, Any]:
    fields = {
        "did": DID,
        "seq": 2,
        "time": "2026-07-04T14:38:07.112Z",
        "active": False,
        "status": "takendown",
    }
    return {"did": DID, "time_us": TIME_US, "kind": "account", "account": fields | inner}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (commit(), "3mptbypluud2a-DJh0fBVcSUSOvRqtdZLYjA"),
        (commit(operation="delete"), "3mptbypluud2a-UM9i1EWxVo-z999GWJk-2w"),
        # The first character of a TID is one of the lower sixteen.
        (commit(rev="bmptbypluud2a"), "bmptbypluud2a-FLgZsWBWWtdSPew3sT66NA"),
        (commit(rev="cmptbypluud2a"), "cmptbypluud2a-L-8TeEzAfMOn9rOa_WrJTA"),
        (commit(rev="jmptbypluud2a"), "jmptbypluud2a-Pg8G9E--GFF8GnQxFDSxOw"),
        (commit(rev="kmptbypluud2a"), "ZhMOA7U0ejdMeRKuJCS0gQ"),
        (commit(rev="not a tid"), "8C8SXD_6ZqXQj5GIkudTNw"),
        (commit(rkey="ünïcödé 🌸"), "3mptbypluud2a-gtLrgK13K55QtQqRTySNaw"),
        (commit(collection="", rkey="", rev=""), "aP9Qx9dZV1J3zJfOrM8fjg"),
        (identity(), "QFxNNozXO38SMeB35YHN3w"),
        (identity(handle=None), "kmtCO3YLEIYlG-ACuEymIA"),
        (account(), "cS5gqx2nLQkcNd_A2vlT6g"),
        (account(active=True, status=None), "MjjFUKC-GxB47zMmRpWIfQ"),
    ],
)
def test_ids_equal_the_golden_vectors(event: dict[str, Any], expected: str) -> None:
    assert event_id(event) == expected


def test_values_of_one_host_do_not_change_the_id() -> None:
    here, there = identity(seq=1), identity(seq=99)
    there |= {"cursor": 7, "time_us": TIME_US + 5}
    assert event_id(here) == event_id(there)


def test_the_boundary_between_two_parts_changes_the_id() -> None:
    assert event_id(commit(collection="a", rkey="bc")) != event_id(commit(collection="ab", rkey="c"))
    assert event_id(commit(collection="a,1:b", rkey="c")) != event_id(commit(collection="a", rkey="b,1:c"))


def test_an_absent_handle_differs_from_a_tilde() -> None:
    assert event_id(identity(handle=None)) != event_id(identity(handle="~"))


def test_ids_are_short_and_plain_for_any_user_input() -> None:
    doc_id = event_id(commit(rkey="🌸" * 10_000, collection='","_index":"other', rev="x" * 5000))
    assert len(doc_id) < 64
    assert doc_id.replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize("time_us", [REV_US + DAY_US, REV_US, REV_US - 400 * DAY_US, 0])
def test_a_plausible_rev_chooses_the_instant_for_any_time_us(time_us: int) -> None:
    assert instant_us(commit(time_us=time_us)) == REV_US
    assert instant_us(sync(time_us=time_us)) == REV_US


def test_an_old_or_invalid_rev_is_replaced_by_time_us() -> None:
    # A dormant account that is announced again belongs to today.
    assert instant_us(commit(time_us=REV_US + DAY_US + 1)) == REV_US + DAY_US + 1
    assert instant_us(sync(time_us=REV_US + DAY_US + 1)) == REV_US + DAY_US + 1
    assert instant_us(commit(rev="invalid")) == TIME_US


def test_a_rev_more_than_a_day_after_now_us_is_replaced_by_time_us() -> None:
    for event in (commit(), sync()):
        assert identify(event, now_us=REV_US - DAY_US).instant_us == REV_US
        found = identify(event, now_us=REV_US - DAY_US - 1)
        assert (found.instant_us, found.is_future) == (TIME_US, True)
        assert found.id == event_id(event), "only the day depends on a clock"


def test_the_instant_of_identity_and_account_is_their_inner_time() -> None:
    assert instant_us(identity()) == 1783175887112000
    assert instant_us(account(time="2020-01-01T00:00:00Z")) == TIME_US
    assert instant_us(account(time="soon")) == TIME_US


def test_days_and_times_are_formatted_and_parsed() -> None:
    assert day_of(instant_us(commit()) // DAY_US) == "2026.07.04"
    assert isoformat(REV_US) == "2026-07-04T14:38:07.514441Z"
    assert parse_time("2026-07-04T14:38:07.514441Z") == REV_US
    assert parse_time("2026-07-04T16:38:07.514441+02:00") == REV_US
    assert parse_time("1969-12-31T23:59:59Z") is None
    assert parse_time("9999-12-31T23:59:59-12:00") is None


def test_every_recorded_event_has_its_own_id(corpus: list[Path]) -> None:
    for path in corpus:
        frames = path.read_bytes().splitlines()
        assert len({event_id(orjson.loads(frame)) for frame in frames}) == len(frames)
