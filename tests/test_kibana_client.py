"""Kibana at the level of requests, and what counts as the same object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from slurp.config import parse
from slurp.kibana import client
from slurp.kibana.sameness import digest
from slurp.logs import Secrets
from tests.stub_kibana import Answer, StubKibana, built


@pytest.fixture
def kibana() -> Iterator[StubKibana]:
    with StubKibana() as stub:
        yield stub


def asking(kibana: StubKibana) -> client.Kibana:
    return client.Kibana(parse(["--kibana", kibana.url], {}), Secrets(()))


@pytest.mark.parametrize("answer", [b"<html>", {"status": "ok"}, {}, {"status": {"overall": 1}}, []])
def test_what_is_no_kibana_is_waited_for(
    kibana: StubKibana, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    monkeypatch.setattr(kibana, "_status", lambda asked: answer)
    with pytest.raises(client.NotReady, match="does not describe itself as Kibana does"):
        asking(kibana).status()


@pytest.mark.parametrize("told", [True, False])
def test_an_export_is_of_what_is_there(kibana: StubKibana, told: bool) -> None:
    kibana.tells_what_is_missing = told
    ours = built()
    keys = [(one["type"], one["id"]) for one in ours]
    assert asking(kibana).export(keys) == {}
    asking(kibana).import_objects(ours[:2], overwrite=False)
    assert set(asking(kibana).export(keys)) == set(keys[:2])


def test_an_export_that_is_kept_from_us_is_not_taken_for_missing(
    kibana: StubKibana, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = {"statusCode": 403, "error": "Forbidden", "message": "Unable to bulk_get search:view-posts"}
    attributes = {"objects": [{"type": "search", "id": "view-posts", "error": error}]}

    def forbidden(space: str, body: Any) -> Any:
        raise Answer.error(400, "Error fetching objects to export", attributes=attributes)

    monkeypatch.setattr(kibana, "_export", forbidden)
    with pytest.raises(client.Refused, match="Unable to bulk_get search:view-posts"):
        asking(kibana).export([("search", "view-posts")])


@pytest.mark.parametrize("status", [302, 400, 404, 413])
def test_a_refusal_is_told_in_kibanas_words(
    kibana: StubKibana, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    def refuse(space: str, lines: bytes, overwrite: bool) -> Any:
        raise Answer.error(status, "what\nit says")

    monkeypatch.setattr(kibana, "_import", refuse)
    with pytest.raises(client.Refused, match=f"POST /api/saved_objects/_import: {status} what it says"):
        asking(kibana).import_objects(built(), overwrite=False)


def test_an_import_without_overwrite_replaces_nothing(kibana: StubKibana) -> None:
    asking(kibana).import_objects(built()[:1], overwrite=False)
    with pytest.raises(client.Conflict, match="index-pattern view: conflict"):
        asking(kibana).import_objects(built(), overwrite=False)
    assert len(kibana.objects) == 1


def test_an_error_of_any_length_is_cut(kibana: StubKibana) -> None:
    kibana.refuses_import = [{"type": "search", "id": "x" * 10_000, "error": {"type": "unknown"}}] * 50
    with pytest.raises(client.Refused, match="and 47 more") as refused:
        asking(kibana).import_objects(built()[:1], overwrite=False)
    assert len(str(refused.value)) < 2000


def test_the_same_is_the_same_however_it_is_written() -> None:
    one = built()[2]
    same = json.loads(json.dumps(one)) | {"updated_at": "now", "managed": False, "namespaces": ["default"]}
    same["references"].reverse()
    same["attributes"]["panelsJSON"] = json.dumps(json.loads(one["attributes"]["panelsJSON"]), indent=1)
    same["attributes"]["description"] = ""
    assert digest(one) == digest(same)
    same["references"].pop()
    assert digest(one) != digest(same)
