"""The colors of series: the same action has the same color on all dashboards."""

from __future__ import annotations

from collections.abc import Mapping

# Kibana's palette for the color blind, from green and blue to brown and red.
PALETTE = (
    "#54B399",
    "#6092C0",
    "#D36086",
    "#9170B8",
    "#CA8EAE",
    "#D6BF57",
    "#B9A888",
    "#DA8B45",
    "#AA6556",
    "#E7664C",
)
# Colors of single numbers.
GREEN, BLUE, PINK, PURPLE, *_ = PALETTE
GREY = "#98A2B3"

# Of series by label: indices of the palette.
FIXED_COLORS: Mapping[str, int] = {
    "posts": 1,
    "likes": 2,
    "reposts": 0,
    "follows": 3,
    "quotes": 7,
    "replies": 5,
    "blocks": 9,
    "unfollows": 6,
    "new accounts": 0,
    "deleted accounts": 9,
    "new posts": 1,
    "create": 0,
    "update": 5,
    "delete": 9,
    "median": 0,
    "90th percentile": 5,
    "95th percentile": 5,
    "99th percentile": 9,
    "received": 1,
    "indexed": 0,
    "events in flight": 1,
    "batches in the queue": 7,
    "duplicates": 6,
    "quarantined": 5,
    "dead letters": 9,
    "dropped by an ingest pipeline": 3,
    "expired": 8,
}
# The values of a field, if these are known.
FIXED_VALUES: Mapping[str, tuple[str, ...]] = {
    "commit.operation": ("create", "update", "delete"),
}
