"""The events of a server during its bootstrap: a create for each existing record, by repository."""

from __future__ import annotations

import random
from typing import Any

from slurp.events import tid

DAY_US = 86_400_000_000


def announced(
    repositories: int, now_us: int, *, seed: int = 1, rows: tuple[int, int] = (3, 34)
) -> list[dict[str, Any]]:
    """Return events in the shape of v1, without cursors; the last repository is announced at `now_us`.

    All rows of a repository have one rev and one time. One repository in seven is dormant; the revs of the
    others are some hours old at most. Three records in five are old, and one in seven has no TID for a key.
    """
    dice = random.Random(seed)
    events: list[dict[str, Any]] = []
    for number in range(repositories):
        did = f"did:plc:{number:024}"
        time_us = now_us - (repositories - number) * 10_000
        since_us = 700 * DAY_US if dice.random() < 0.15 else int(dice.random() * 10 * 3600e6)
        rev_us = time_us - since_us
        for row in range(dice.randint(*rows)):
            created_us = rev_us - (int((1 + dice.random() * 300) * DAY_US) if dice.random() < 0.6 else row)
            key = f"key{row}" if dice.random() < 0.15 else tid.from_micros(created_us, row)
            record = {
                "$type": "app.bsky.feed.post",
                "text": "good morning",
                "createdAt": "2025-01-01T00:00:00Z",
            }
            events.append(
                {
                    "did": did,
                    "time_us": time_us,
                    "kind": "commit",
                    "commit": {
                        "rev": tid.from_micros(rev_us, 7),
                        "operation": "create",
                        "collection": "app.bsky.feed.post",
                        "rkey": key,
                        "record": record,
                        "cid": "bafyreibfqk6rmfb63yw6uwtxz6gtaajaqdfrk2h3rntlukskf3feaihany",
                    },
                }
            )
    return events
