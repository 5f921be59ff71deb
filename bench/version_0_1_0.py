"""The index and the documents of version 0.1.0, for comparison and for the test of an upgrade."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from slurp.documents.document import Document, build
from slurp.documents.urls import page_url
from slurp.events.frames import parse

Json = dict[str, Any]

_LATER_FIELDS = ("spellings", "tags_text")


def index_body() -> Json:
    """Return the body of a daily index, with the mark by which the worker recognizes its indices."""
    body: Json = orjson.loads(Path(__file__).with_name("index-0.1.0.json").read_bytes())
    body["mappings"]["_meta"] = {"skeetslurper": {"version": "0.1.0", "hash": "of version 0.1.0"}}
    return body


def document(frame: bytes, host: str, arrived_us: int) -> Document:
    """Return the document of a v1 frame: the present one with its pages on bsky.app and its subject's CID."""
    event = parse(frame)
    now = build(event, host, arrived_us)
    source = orjson.loads(now.body)
    for name in _LATER_FIELDS:
        source.pop(name, None)
    _add_page(source)
    for reference in (
        source.get("subject"),
        source.get("quote"),
        source.get("reply", {}).get("parent"),
    ):
        if reference is not None:
            _add_page(reference)
    if "subject" in source:
        record = event["commit"]["record"]
        target = next((record[name] for name in ("subject", "post", "document") if name in record), None)
        if isinstance(target, dict) and isinstance(target.get("cid"), str):
            source["subject"]["cid"] = target["cid"]
    return Document(now.identity, orjson.dumps(source))


def _add_page(reference: Json) -> None:
    if url := page_url(reference.get("uri", "")):
        reference["url"] = url
