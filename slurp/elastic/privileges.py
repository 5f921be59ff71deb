"""The roles that docs/privileges.md describes: the privileges for setup, worker and viewers."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from slurp.elastic.templates import ACTORS_INDEX, DRIFT_INDEX, STATE_INDEX, STATS_INDEX, TRENDS_INDEX

Role = dict[str, Any]

_OWN_INDICES = [STATE_INDEX, DRIFT_INDEX, STATS_INDEX, TRENDS_INDEX, ACTORS_INDEX]


def setup(index: str) -> Role:
    """Return the role for `--setup-only`.

    The last two cluster privileges are needed only if the cluster has ingest processors and ILM.
    """
    return {
        "cluster": ["monitor", "manage_index_templates", "manage_ingest_pipelines", "manage_ilm"],
        "indices": [
            {"names": [f"{index}-*"], "privileges": ["view_index_metadata", "manage"]},
            {"names": _OWN_INDICES, "privileges": ["view_index_metadata", "create_index", "manage", "read"]},
        ],
    }


def worker(index: str) -> Role:
    """Return the role with the fewest privileges, for a worker with `--no-setup`.

    The last two cluster privileges allow it to check the setup; without them it logs a warning.
    """
    return {
        "cluster": ["monitor", "read_pipeline", "read_ilm"],
        "indices": [
            {
                "names": [f"{index}-*"],
                # delete: for canary documents. delete_index: for days past retention or above --max-disk.
                # monitor: to measure the size of days for --max-disk. read and maintenance: for --deletions
                # apply, and read for the page of --http.
                "privileges": [
                    "create_index",
                    "view_index_metadata",
                    "index",
                    "delete",
                    "delete_index",
                    "monitor",
                    "read",
                    "maintenance",
                ],
            },
            {
                "names": _OWN_INDICES,
                "privileges": ["view_index_metadata", "maintenance", "read", "index", "delete"],
            },
        ],
    }


def worker_with_setup(index: str) -> Role:
    """Return the role for a worker that performs the setup at each start: the union of both roles."""
    first, second = setup(index), worker(index)
    privileges_by_names: dict[tuple[str, ...], set[str]] = {}
    for entry in (*first["indices"], *second["indices"]):
        privileges_by_names.setdefault(tuple(entry["names"]), set()).update(entry["privileges"])
    return {
        "cluster": first["cluster"],
        "indices": [
            {"names": list(names), "privileges": sorted(privileges)}
            for names, privileges in privileges_by_names.items()
        ],
    }


def viewer(index: str) -> Role:
    """Return the read-only role for users of Kibana or of the search API."""
    return {
        "cluster": [],
        "indices": [
            # By pattern, because dashboards also read the statistics.
            {"names": [f"{index}-*", "skeetslurper-*"], "privileges": ["read", "view_index_metadata"]}
        ],
        # As stored by Kibana for the privilege "read" on all features of a space.
        "applications": [
            {"application": "kibana-.kibana", "privileges": ["space_read"], "resources": ["space:default"]}
        ],
    }


ROLES = {
    "skeetslurper_setup": setup,
    "skeetslurper_worker": worker,
    "skeetslurper_worker_with_setup": worker_with_setup,
    "skeetslurper_viewer": viewer,
}


def api_key(role: str, index: str) -> dict[str, Any]:
    """Return the body of the request that creates an API key with the privileges of a role."""
    return {"name": role, "role_descriptors": {role: ROLES[role](index)}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the body of a role, or of a request that creates an API key with its privileges, as JSON."""
    parser = argparse.ArgumentParser(prog="python -m slurp.elastic.privileges", description=main.__doc__)
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("index", nargs="?", default="bluesky-events", help="(default: bluesky-events)")
    parser.add_argument("--api-key", action="store_true", help="print a request that creates an API key")
    options = parser.parse_args(arguments)
    role, index = options.role, options.index
    print(json.dumps(api_key(role, index) if options.api_key else ROLES[role](index), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
