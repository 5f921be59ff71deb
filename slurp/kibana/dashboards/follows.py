"""The dashboard "Follows, blocks and accounts"."""

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
    records,
)
from slurp.kibana.panels import (
    ACTIVITY,
    EXISTING,
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
_NEW, _DELETED = created(PROFILE), All(_ACCOUNTS, Is("account.status", "deleted"))

HANDLES = Search(
    name="handle-changes",
    title="Handle changes",
    shows=EXISTING,
    columns={"did": 300, "identity.handle": None},
    where=All(_IDENTITIES, Has("identity.handle")),
)

FOLLOWS_AND_ACCOUNTS = Dashboard(
    name="follows",
    title="Follows, blocks and accounts",
    description="Followed and blocked accounts, lists and starter packs, and new and deleted accounts.",
    span="now-24h",
    refresh=60,
    rows=(
        Row(
            6,
            Metric(
                title="Follows",
                shows=EXISTING,
                where=FOLLOWS,
                measure=count("Follows"),
                color=GREEN,
                trend=True,
            ),
            Metric(
                title="Unfollows",
                shows=ACTIVITY,
                where=deleted(FOLLOW),
                measure=count("Unfollows"),
                trend=True,
            ),
            Metric(
                title="Blocks", shows=EXISTING, where=BLOCKS, measure=count("Blocks"), color=PINK, trend=True
            ),
            Metric(
                title="New profiles",
                shows=ACTIVITY,
                where=_NEW,
                measure=count("New profiles"),
                color=BLUE,
                trend=True,
            ),
            Metric(
                title="Deleted accounts",
                shows=ACTIVITY,
                where=_DELETED,
                measure=unique("did", "Deleted accounts"),
                color=GREY,
            ),
            Metric(
                title="Handle changes",
                shows=ACTIVITY,
                where=All(_IDENTITIES, Has("identity.handle")),
                measure=count("Handle changes"),
            ),
        ),
        Row(
            13,
            Table(
                title="Accounts with the most new followers",
                shows=EXISTING,
                where=FOLLOWS,
                by=(Top("subject.did", "Account", 50),),
                measures=(count("Follows"),),
            ),
            Table(
                title="Accounts blocked most often",
                shows=EXISTING,
                where=BLOCKS,
                by=(Top("subject.did", "Account", 50),),
                measures=(count("Blocks"),),
            ),
            Table(
                title="Accounts that follow the most",
                shows=EXISTING,
                where=FOLLOWS,
                by=(Top("did", "Account", 50),),
                measures=(count("Follows"),),
            ),
        ),
        Row(
            11,
            Series(
                title="Follows and unfollows per minute",
                shows=ACTIVITY,
                style="line",
                split=Cases({"follows": created(FOLLOW), "unfollows": deleted(FOLLOW)}, "Follows"),
                measures=(count("Events per minute", per="m"),),
            ),
            Series(
                title="Blocks and unblocks per minute",
                shows=ACTIVITY,
                style="line",
                split=Cases({"blocks": created(BLOCK), "unblocks": deleted(BLOCK)}, "Blocks"),
                measures=(count("Events per minute", per="m"),),
            ),
        ),
        Row(
            13,
            Table(
                title="Lists with the most new members",
                shows=EXISTING,
                where=records(LIST_ITEM),
                by=(Top("list.uri", "List", 50),),
                measures=(count("New members"),),
            ),
            Table(
                title="New and updated lists and starter packs",
                shows=EXISTING,
                where=Either(records(STARTER_PACK), records(LIST)),
                by=(Top("name.keyword", "Name", 50),),
                measures=(
                    count("Starter packs", where=records(STARTER_PACK)),
                    count("Lists", where=records(LIST)),
                ),
            ),
            Table(
                title="Follows by source (starter pack or repost)",
                shows=EXISTING,
                where=All(FOLLOWS, Has("via.uri")),
                by=(Top("via.uri", "Source", 50),),
                measures=(count("Follows"),),
            ),
        ),
        Row(
            12,
            Series(
                title="New, deleted and deactivated accounts over time",
                shows=ACTIVITY,
                style="bar_stacked",
                split=Cases(
                    {
                        "new profile": _NEW,
                        "deleted": _DELETED,
                        "deactivated": All(_ACCOUNTS, Is("account.status", "deactivated")),
                        "taken down": All(_ACCOUNTS, Is("account.status", "takendown")),
                        "suspended": All(_ACCOUNTS, Is("account.status", "suspended")),
                    },
                    "Change",
                ),
                measures=(count("Events"),),
            ),
            Shares(
                title="Inactive accounts by status",
                shows=ACTIVITY,
                width=12,
                where=All(_ACCOUNTS, Is("account.active", False)),
                by=(Top("account.status", "Status", 6, other=True),),
                measure=count("Events"),
            ),
            Documents(title="Latest handle changes", width=18, search=HANDLES),
        ),
    ),
)
