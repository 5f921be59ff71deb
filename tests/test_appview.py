"""The client of an AppView, against a simulated one: answers, limits and failures."""

from __future__ import annotations

import time
from collections.abc import Iterator

import orjson
import pytest

from slurp.actors.appview import AppView, Post, Profile, Unavailable
from slurp.simulator.jetstream import Simulator

URI = "at://did:plc:x/app.bsky.feed.post/3k"


class Clock:
    """Unix time that a test sets."""

    def __init__(self) -> None:
        self.now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> Iterator[Simulator]:
    with Simulator(port=0, seed=1) as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(server: Simulator, clock: Clock) -> AppView:
    return AppView(server.url.replace("ws://", "http://") + "/", clock)


def accounts(server: Simulator, count: int) -> list[str]:
    return [account.did for account in server._generator.population.accounts[:count]]


def profiles(client: AppView, dids: list[str]) -> dict[str, Profile | None]:
    return {did: profile for part in client.profiles(dids) for did, profile in part.items()}


def test_profiles_are_returned_25_a_call(server: Simulator, client: AppView) -> None:
    dids = accounts(server, 60)
    server.appview.removed = {dids[7]}
    found = profiles(client, dids)
    assert found.keys() == set(dids)
    assert found[dids[7]] is None
    account = server._generator.population.accounts[0]
    first = found[account.did]
    assert first is not None
    assert (first.handle, first.display_name) == (account.handle, account.name)
    assert first.followers == account.clock and first.created_at and first.avatar_url and first.description
    assert [len(names) for _, names in server.appview.calls] == [25, 25, 10]


def test_posts_are_returned(server: Simulator, client: AppView) -> None:
    server.appview.posts[URI] = "Hello"
    [found] = client.posts([URI, URI + "x"])
    assert found == {URI: Post(URI, "Hello"), URI + "x": None}


def test_one_invalid_name_does_not_lose_the_others(server: Simulator, client: AppView) -> None:
    dids = accounts(server, 25)
    server.appview.invalid = {dids[3]}
    found = profiles(client, dids)
    assert [did for did, profile in found.items() if profile is None] == [dids[3]]


def test_what_was_found_before_a_failure_is_kept(server: Simulator, client: AppView) -> None:
    dids = sorted(accounts(server, 30))
    parts = client.profiles(dids)
    assert next(parts).keys() == set(dids[:25])
    server.appview.failures.append((500, {}, b"{}"))
    with pytest.raises(Unavailable):
        next(parts)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no JSON",
        b"[]",
        b"[" * 100_000,
        b"x" * 3_000_000,
    ],
)
def test_an_answer_that_cannot_be_read_is_a_failure(server: Simulator, client: AppView, body: bytes) -> None:
    server.appview.failures.append((200, {}, body))
    with pytest.raises(Unavailable):
        profiles(client, accounts(server, 1))


def test_values_of_another_type_are_left_out(server: Simulator, client: AppView) -> None:
    [did] = accounts(server, 1)
    listed = [
        {
            "did": did,
            "handle": 7,
            "displayName": ["x"],
            "followersCount": "9",
            "labels": [1, {"val": "spam"}],
        },
        {"did": "did:plc:other", "handle": "evil.example"},
        7,
    ]
    server.appview.failures.append((200, {}, orjson.dumps({"profiles": listed})))
    assert profiles(client, [did]) == {did: Profile(did, labels=("spam",))}
    server.appview.failures.append((200, {}, orjson.dumps({"profiles": {"did": did}})))
    assert profiles(client, [did]) == {did: None}
    listed = [{"did": did, "handle": "handle.invalid", "displayName": "n" * 9000}]
    server.appview.failures.append((200, {}, orjson.dumps({"profiles": listed})))
    assert profiles(client, [did]) == {did: Profile(did, display_name="n" * 640)}


def test_failures_pause_the_calls_longer_each_time(server: Simulator, client: AppView, clock: Clock) -> None:
    dids = accounts(server, 1)
    pauses = []
    for _ in range(10):
        server.appview.failures.append((503, {}, b""))
        with pytest.raises(Unavailable) as caught:
            profiles(client, dids)
        pauses.append(caught.value.until - clock.now)
        with pytest.raises(Unavailable):
            profiles(client, dids)
        clock.now = caught.value.until
    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert client.calls == 10, "no calls are made during a pause"
    assert profiles(client, dids)[dids[0]] is not None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"ratelimit-reset": "1790000100"}, 100),
        ({"Retry-After": "40"}, 40),
        ({"ratelimit-reset": "99999999999999999999"}, 900),
        ({"ratelimit-reset": "soon"}, 2),
        ({}, 2),
    ],
)
def test_a_server_may_ask_to_wait(
    server: Simulator, client: AppView, clock: Clock, headers: dict[str, str], seconds: float
) -> None:
    server.appview.failures.append((429, headers, b"{}"))
    with pytest.raises(Unavailable) as caught:
        profiles(client, accounts(server, 1))
    assert caught.value.until - clock.now == seconds


def test_calls_are_limited(server: Simulator, client: AppView, clock: Clock) -> None:
    client._called.extend([clock.now - 10] * 599)
    dids = accounts(server, 26)
    with pytest.raises(Unavailable) as caught:
        profiles(client, dids)
    assert caught.value.until == clock.now + 290
    assert client.calls == 1
    clock.now += 290
    assert len(profiles(client, dids)) == 26


def test_no_server_is_a_failure(clock: Clock) -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable):
        profiles(AppView("http://127.0.0.1:1", clock), ["did:plc:x"])
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_a_status_that_says_nothing_about_an_account_is_a_failure(
    server: Simulator, client: AppView, status: int
) -> None:
    server.appview.failures.append((status, {}, b"{}"))
    with pytest.raises(Unavailable, match=str(status)):
        profiles(client, accounts(server, 1))


def test_a_redirect_is_a_failure(server: Simulator, client: AppView) -> None:
    server.appview.failures.append((302, {"Location": "http://127.0.0.1:1/"}, b"{}"))
    with pytest.raises(Unavailable, match="302"):
        profiles(client, accounts(server, 1))
