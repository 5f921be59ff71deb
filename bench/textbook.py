"""A textbook script for comparison: Jetstream to Elasticsearch with the client libraries.

`python -m bench.textbook JETSTREAM_URL ELASTICSEARCH_URL PASSWORD INDEX`
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

import websocket
from elasticsearch import Elasticsearch, helpers


def document(event: dict[str, Any]) -> dict[str, Any]:
    commit = event.get("commit", {})
    record = commit.get("record") or {}
    source = {
        "@timestamp": datetime.fromtimestamp(event["time_us"] / 1e6, UTC).isoformat(),
        "did": event["did"],
        "kind": event["kind"],
        "commit": {name: commit.get(name) for name in ("operation", "collection", "rkey", "rev", "cid")},
        "text": record.get("text"),
        "langs": record.get("langs"),
        "created_at": record.get("createdAt"),
    }
    if collection := commit.get("collection"):
        source["record"] = {collection: record}
    return source


def main(jetstream: str, es_url: str, password: str, index: str) -> None:
    es = Elasticsearch(es_url, basic_auth=("elastic", password))
    actions: list[dict[str, Any]] = []

    def on_message(_: websocket.WebSocketApp, message: str) -> None:
        event = json.loads(message)
        seen = datetime.fromtimestamp(event["time_us"] / 1e6, UTC)
        actions.append({"_index": f"{index}-{seen:%Y.%m.%d}", "_source": document(event)})
        if len(actions) >= 500:
            helpers.bulk(es, actions)
            actions.clear()

    def on_error(_: websocket.WebSocketApp, error: Exception) -> None:
        sys.exit(f"textbook: {error!r}")

    url = f"{jetstream}/subscribe?cursor=0"
    app = websocket.WebSocketApp(url, on_message=on_message, on_error=on_error)
    app.run_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
