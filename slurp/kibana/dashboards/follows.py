"""Who follows and blocks whom, and which accounts come and go."""

from __future__ import annotations

from slurp.kibana.conditions import All, Either, Has, Is
from slurp.kibana.dashboards.filters import (
    BLOCK,
    BLOCKS,
    BLUE,
    FOLLOW,
    FOLLOWS,
    GREEN,
    GREY,
    LIST,
    LIST_ITEM,
    PINK,
    PROFILE,
    STARTER_PACK,
    created,
    deleted,
)
from slurp.kibana.panels import (
    Cases,
    Dashboard,
    Documents,
    Metric,
    Row,
    Search,
    Series,
    Shares,
    Table,
    Top,
    count,
    unique,
)

_ACCOUNTS, _IDENTITIES = Is("kind", "account"), Is("kind", "identity")
_NEW, _GONE = created(PROFILE), All(_ACCOUNTS, Is("account.status", "deleted"))

HANDLES = Search(
    name="handle-changes",
    title="Changes of handles",
    columns={"did": 300, "identity.handle": None},
    where=All(_IDENTITIES, Has("identity.handle")),
)

FOLLOWED = Dashboard(
    name="follows",
    title="Who follows whom",
    question="Who gains followers, who is blocked, and which accounts come and go?",
    span="now-24h",
    refresh=60,
    rows=(
        Row(
            6,
            Metric(
                question="How many follow?",
                where=FOLLOWS,
                measure=count("Follows"),
                color=GREEN,
                trend=True,
            ),
            Metric(
                question="How many think again?",
                where=deleted(FOLLOW),
                measure=count("Unfollows"),
                trend=True,
            ),
            Metric(question="How many block?", where=BLOCKS, measure=count("Blocks"), color=PINK, trend=True),
            Metric(
                question="How many are new?",
                where=_NEW,
                measure=count("First profiles"),
                color=BLUE,
                trend=True,
            ),
            Metric(
                question="How many are gone?",
                where=_GONE,
                measure=unique("did", "Deleted accounts"),
                color=GREY,
            ),
            Metric(
                question="How many change their name?",
                where=All(_IDENTITIES, Has("identity.handle")),
                measure=count("Handle changes"),
            ),
        ),
        Row(
            13,
            Table(
                question="Who is followed most?",
                where=FOLLOWS,
                by=(Top("subject.did", "Person", 50),),
                measures=(count("Follows"),),
            ),
            Table(
                question="Who is blocked most?",
                where=BLOCKS,
                by=(Top("subject.did", "Person", 50),),
                measures=(count("Blocks"),),
            ),
            Table(
                question="Who follows the most people?",
                where=FOLLOWS,
                by=(Top("did", "Person", 50),),
                measures=(count("Follows"),),
            ),
        ),
        Row(
            11,
            Series(
                question="When do people follow and unfollow?",
                style="line",
                split=Cases({"follows": FOLLOWS, "unfollows": deleted(FOLLOW)}, "Follows"),
                measures=(count("Events a minute", per="m"),),
            ),
            Series(
                question="When do people block and unblock?",
                style="line",
                split=Cases({"blocks": BLOCKS, "unblocks": deleted(BLOCK)}, "Blocks"),
                measures=(count("Events a minute", per="m"),),
            ),
        ),
        Row(
            13,
            Table(
                question="Which lists grow?",
                where=created(LIST_ITEM),
                by=(Top("list.uri", "List", 50),),
                measures=(count("New members"),),
            ),
            Table(
                question="Which new lists and starter packs are there?",
                where=Either(created(STARTER_PACK), created(LIST)),
                by=(Top("name.keyword", "Name", 50),),
                measures=(
                    count("Starter packs", where=created(STARTER_PACK)),
                    count("Lists", where=created(LIST)),
                ),
            ),
            Table(
                question="Through which starter packs and reposts do people follow?",
                where=All(FOLLOWS, Has("via.uri")),
                by=(Top("via.uri", "Came through", 50),),
                measures=(count("Follows"),),
            ),
        ),
        Row(
            12,
            Series(
                question="Which accounts come and go?",
                style="bar_stacked",
                split=Cases(
                    {
                        "first profile": _NEW,
                        "deleted": _GONE,
                        "deactivated": All(_ACCOUNTS, Is("account.status", "deactivated")),
                        "taken down": All(_ACCOUNTS, Is("account.status", "takendown")),
                        "suspended": All(_ACCOUNTS, Is("account.status", "suspended")),
                    },
                    "What happened",
                ),
                measures=(count("Events"),),
            ),
            Shares(
                question="Why can accounts not be seen?",
                width=12,
                where=All(_ACCOUNTS, Is("account.active", False)),
                by=(Top("account.status", "Status", 6, other=True),),
                measure=count("Events"),
            ),
            Documents(question="Who has a new handle?", width=18, search=HANDLES),
        ),
    ),
)
