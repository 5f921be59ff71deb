"""The rights that set-up and worker need: what docs/privileges.md shows, and what the tests use."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from slurp.elastic.templates import DRIFT_INDEX, STATE_INDEX, STATS_INDEX

Role = dict[str, Any]

_OWN = [STATE_INDEX, DRIFT_INDEX, STATS_INDEX]


def admin(index: str) -> Role:
    """For `--setup-only`. The last two cluster privileges only where the cluster has these features."""
    return {
        "cluster": ["monitor", "manage_index_templates", "manage_ingest_pipelines", "manage_ilm"],
        "indices": [
            {"names": [f"{index}-*"], "privileges": ["view_index_metadata", "manage"]},
            {"names": _OWN, "privileges": ["view_index_metadata", "create_index", "manage", "read"]},
        ],
    }


def worker(index: str) -> Role:
    """For a worker with `--no-setup`: the least.

    The last two cluster privileges let it check what the set-up put; without them it warns that it cannot.
    """
    return {
        "cluster": ["monitor", "read_pipeline", "read_ilm"],
        "indices": [
            {
                "names": [f"{index}-*"],
                # delete: the canary of an unknown error. delete_index: days past retention, or above
                # --max-disk, which monitor is for.
                "privileges": [
                    "create_index",
                    "view_index_metadata",
                    "index",
                    "delete",
                    "delete_index",
                    "monitor",
                ],
            },
            {"names": _OWN, "privileges": ["view_index_metadata", "maintenance", "read", "index"]},
        ],
    }


def worker_with_setup(index: str) -> Role:
    """For a worker that does the set-up itself at every start: both."""
    first, second = admin(index), worker(index)
    indices: dict[tuple[str, ...], set[str]] = {}
    for entry in (*first["indices"], *second["indices"]):
        indices.setdefault(tuple(entry["names"]), set()).update(entry["privileges"])
    return {
        "cluster": first["cluster"],
        "indices": [
            {"names": list(names), "privileges": sorted(rights)} for names, rights in indices.items()
        ],
    }


def page(index: str) -> Role:
    """Beside one of the others, for a worker with `--http`: what its page shows of the documents."""
    return {
        "cluster": [],
        "indices": [{"names": [f"{index}-*"], "privileges": ["read", "view_index_metadata"]}],
    }


def viewer(index: str) -> Role:
    """For people who only look: with Kibana's dashboards and Discover, or with searches of their own."""
    return {
        "cluster": [],
        "indices": [
            # All of ours, by pattern: dashboards read the statistics as well.
            {"names": [f"{index}-*", "skeetslurper-*"], "privileges": ["read", "view_index_metadata"]}
        ],
        # As Kibana stores "read" for all features of a space.
        "applications": [
            {"application": "kibana-.kibana", "privileges": ["space_read"], "resources": ["space:default"]}
        ],
    }


ROLES = {
    "skeetslurper_setup": admin,
    "skeetslurper_worker": worker,
    "skeetslurper_worker_with_setup": worker_with_setup,
    "skeetslurper_page": page,
    "skeetslurper_viewer": viewer,
}
# What a role is of no use without: a worker has one key.
_BESIDE = {"skeetslurper_page": ("skeetslurper_worker",)}


def api_key(role: str, index: str) -> dict[str, Any]:
    """The body of the request that creates an API key with the privileges of a role."""
    names = (*_BESIDE.get(role, ()), role)
    return {"name": role, "role_descriptors": {name: ROLES[name](index) for name in names}}


def _role(role: str, index: str) -> Role:
    return ROLES[role](index)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the body of a role, or of the request for an API key with its privileges, as JSON."""
    parser = argparse.ArgumentParser(prog="python -m slurp.elastic.privileges", description=main.__doc__)
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("index", nargs="?", default="bluesky-events", help="(default: bluesky-events)")
    parser.add_argument("--api-key", action="store_true", help="the request that creates an API key")
    options = parser.parse_args(arguments)
    body = (api_key if options.api_key else _role)(options.role, options.index)
    print(json.dumps(body, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
