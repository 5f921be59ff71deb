"""What a search in texts finds: docs/text-search.md, on a real node of the small distribution."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from elasticsearch import Elasticsearch

from slurp.documents.document import build
from slurp.documents.spellings import other_spellings
from slurp.elastic.analysis import EXAMPLES, Example, analysis, analyze_request
from slurp.elastic.features import Features
from slurp.events.frames import parse
from slurp.web.queries import SearchRequest, search_conditions
from tests.harness import InProcess, commit

PAGE = Path(__file__).resolve().parents[1] / "docs" / "text-search.md"
FULL = Features(folding=True)


def found(es: Elasticsearch, indexer: InProcess, query: dict[str, Any]) -> set[str]:
    """Return the texts of the records that a query finds."""
    hits = es.search(index=f"{indexer.index}-*", query=query, size=1000)["hits"]["hits"]
    return {hit["_source"]["record"]["app.bsky.feed.post"]["text"] for hit in hits}


def search(query: str) -> dict[str, Any]:
    """Return a search for all words, as the page of --http has it."""
    (condition,) = search_conditions(SearchRequest(query=query))
    return condition


def test_each_example_is_found_as_the_table_says(es: Elasticsearch, indexer: InProcess) -> None:
    indexer.feed([commit(number, {"text": example.text}) for number, example in enumerate(EXAMPLES)])
    es.indices.refresh(index=f"{indexer.index}-*")
    for example in EXAMPLES:
        options = {"fields": ["text", "spellings"], "default_operator": "and"}
        query = {"simple_query_string": {"query": example.query, **options}}
        assert (example.text in found(es, indexer, query)) == example.small, example


def test_the_page_also_searches_without_accents(es: Elasticsearch, indexer: InProcess) -> None:
    texts = ["un café noir", "un cafe noir", "un thé noir", "I don’t know", "고양이가 좋아요"]
    indexer.feed([commit(number, {"text": text}) for number, text in enumerate(texts)])
    es.indices.refresh(index=f"{indexer.index}-*")
    for query, expected in {
        "café": texts[:2],
        "noir cafe": texts[:2],
        "Café -noir": [],
        "thé": [texts[2]],
        "don't know": [texts[3]],
        "고양이": [texts[4]],
    }.items():
        assert found(es, indexer, search(query)) == set(expected), query


def test_names_descriptions_and_alternative_texts_have_spellings() -> None:
    embed = {"$type": "app.bsky.embed.images", "images": [{"alt": "un café"}, {"alt": "고양이는"}]}
    post = orjson.loads(build(parse(commit(1, {"text": "x", "embed": embed})), "host", 1).body)
    assert post["spellings"] == "cafe 고 고양 고양이"
    record = {"displayName": "Zoë", "description": "naïve"}
    profile = orjson.loads(build(parse(commit(1, record, "app.bsky.actor.profile")), "host", 1).body)
    assert profile["spellings"] == "Zoe naive"


def test_the_complete_text_of_a_bridged_post_is_its_text() -> None:
    link = '<a href="https://a.example/needle">ha&yacute;stacks</a>'
    original = f"<p>A long post about {link} &amp; more</p><p>and the end</p>"
    for record, expected in (
        (
            {"text": "A long …", "bridgyOriginalText": original},
            "A long post about haýstacks & more\nand the end",
        ),
        ({"text": "A short post", "bridgyOriginalText": "<p>A short</p>"}, "A short post"),
        ({"bridgyOriginalText": "<p>1 < 2"}, "1 < 2"),
        ({"text": "as it is", "bridgyOriginalText": 7}, "as it is"),
    ):
        source = orjson.loads(build(parse(commit(1, record)), "host", 1).body)
        assert source["text"] == expected
        assert source["record"]["app.bsky.feed.post"] == record


def test_words_are_spelled_in_other_ways_only_if_they_differ() -> None:
    assert other_spellings("plain text, 'quoted' rock 'n' roll") is None
    assert other_spellings("猫が好き แมว") is None
    assert other_spellings("café Café café") == "cafe Cafe"
    assert other_spellings("l’été d'un") == "l'été l'ete l’ete d’un"
    assert other_spellings("고양이가") == "고 고양 고양이"


@pytest.mark.parametrize("unit", ["a'", "é", "가", "'", "’é", "e\u0301", "a_", "ｶﾞ", "ß"])
def test_long_texts_are_spelled_in_linear_time(unit: str) -> None:
    spellings = other_spellings(unit * 400_000) or ""
    assert len(spellings) < 250_000


def requests_of(analyzer: dict[str, Any]) -> dict[str, Any]:
    """Return an analyzer of index settings as the body of an `_analyze` request has it."""
    return {name: value for name, value in analyzer.items() if name != "type"}


@pytest.mark.parametrize("features", [FULL, Features(folding=True, icu=True)])
def test_texts_and_searches_of_a_full_cluster_are_analyzed_alike(features: Features) -> None:
    """Only the single characters of pairs are in texts alone."""
    settings = analysis(features)
    assert settings is not None
    index, search = settings["analyzer"]["default"], settings["analyzer"]["default_search"]
    assert [name.replace("pairs_and_characters", "cjk_bigram") for name in index.pop("filter")] == search.pop(
        "filter"
    )
    assert index == search
    assert index["tokenizer"] == ("icu_tokenizer" if features.icu else "standard")


def test_a_request_shows_the_analyzer_of_the_index() -> None:
    settings = analysis(FULL)
    assert settings is not None
    body = analyze_request(FULL, "x", "default")
    assert body["char_filter"] == [settings["char_filter"]["characters"]]
    assert body["filter"] == [
        "cjk_width",
        "lowercase",
        {"type": "cjk_bigram", "output_unigrams": True},
        "asciifolding",
    ]
    assert analyze_request(Features(), "x", "default_search") == {"analyzer": "standard", "text": "x"}


def test_the_command_prints_requests_that_the_node_answers(es: Elasticsearch) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "slurp.elastic.analysis"], check=True, capture_output=True, text=True
    ).stdout
    bodies = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert len(bodies) == len(EXAMPLES) * 3 * 2
    small = [body for body in bodies if body.get("analyzer") == "standard"]
    for example, text, query in zip(EXAMPLES, small[::2], small[1::2], strict=True):
        words, wanted = (
            {token["token"] for token in es.indices.analyze(**body)["tokens"]} for body in (text, query)
        )
        assert (wanted <= words) == example.small


def test_the_page_has_the_examples() -> None:
    rows = re.findall(
        r"^\| `(.+)` \| `(.+)` \| (.+) \| (.+) \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    page = [Example(text, query, *(cell == "yes" for cell in cells)) for text, query, *cells in rows]
    assert page == [example for example in EXAMPLES if "\u00ad" not in example.text]
