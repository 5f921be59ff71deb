"""The committed mapping equals what the public lexicons give, where these are available."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from slurp.lexicons import Lexicons, committed, compile, load
from slurp.lexicons.__main__ import main
from slurp.lexicons.asset import ASSETS, MAPPING_FILE
from slurp.lexicons.mapping import OTHER_FIELDS, count_fields
from slurp.lexicons.overrides import COMMON_FIELDS
from tests.conftest import SHARED

Json = dict[str, Any]

public = pytest.mark.skipif(
    not (SHARED / "lexicons").is_dir(),
    reason=f"the public lexicons are not at {SHARED.name}/lexicons beside the project",
)
BASE = committed()


def test_the_committed_mapping_leaves_room_for_the_other_fields() -> None:
    body = orjson.loads((ASSETS / MAPPING_FILE).read_bytes())
    assert count_fields(body["template"]["mappings"]["properties"]) == BASE.fields <= 750
    assert OTHER_FIELDS + BASE.fields <= 1000
    assert body["_meta"]["skeetslurper"]["lexicons"]["record_types"] == sorted(BASE.record_types)


def test_the_committed_mapping_is_not_dynamic_and_respects_lucenes_term_limit() -> None:
    def check(mapping: Json) -> None:
        if "properties" in mapping:
            assert mapping["dynamic"] is False
        if mapping.get("type") == "keyword":
            assert mapping["ignore_above"] * 4 < 32_766
        for child in (*mapping.get("properties", {}).values(), *mapping.get("fields", {}).values()):
            check(child)

    check(dict(BASE.mapping))


def test_commonly_searched_fields_have_the_right_types() -> None:
    profile = BASE.mapping_of("app.bsky.actor.profile")["properties"]
    assert profile["pinnedPost"]["properties"]["uri"]["type"] == "keyword"
    assert profile["avatar"]["properties"]["size"]["type"] == "long"
    assert BASE.mapping_of("app.bsky.feed.threadgate")["properties"]["hiddenReplies"]["type"] == "keyword"


def test_a_value_that_a_common_field_has_is_not_mapped_again() -> None:
    for nsid, paths in COMMON_FIELDS.items():
        for path, common in paths.items():
            assert path not in {*mapped_paths(dict(BASE.mapping_of(nsid)))}
            assert BASE.left_out[nsid][path] == f"common field `{common}`"


@public
def test_the_committed_files_are_current_for_the_public_lexicons(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(SHARED / "lexicons"), "--check"]) == 0, capsys.readouterr().err


@public
def test_check_detects_a_difference_that_build_removes(tmp_path: Path) -> None:
    arguments = ["build", str(SHARED / "lexicons"), "--output", str(tmp_path)]
    assert main([*arguments, "--check"]) == 1
    assert main(arguments) == 0
    assert main([*arguments, "--check"]) == 0
    assert compile(load(SHARED / "lexicons")) == BASE


def declared_paths(sources: Lexicons, definition: Json, home: str, around: tuple[str, ...]) -> Iterator[str]:
    """Yield every property path below `definition`, read from the JSON without the compiler."""
    match definition["type"]:
        case "record":
            yield from declared_paths(sources, definition["record"], home, around)
        case "array":
            yield from declared_paths(sources, definition["items"], home, around)
        case "ref" | "union":
            for ref in definition.get("refs", [definition.get("ref")]):
                nsid, _, name = ref.partition("#")
                nsid, name = nsid or home, name or "main"
                if f"{nsid}#{name}" not in around:
                    target = sources.documents[nsid]["defs"][name]
                    yield from declared_paths(sources, target, nsid, (*around, f"{nsid}#{name}"))
        case "object":
            for name, child in definition.get("properties", {}).items():
                yield name
                for path in declared_paths(sources, child, home, around):
                    yield f"{name}.{path}"


def mapped_paths(mapping: Json) -> Iterator[str]:
    for name, child in mapping.get("properties", {}).items():
        yield name
        for path in mapped_paths(child):
            yield f"{name}.{path}"


@public
def test_every_property_is_mapped_or_left_out_with_a_reason() -> None:
    sources = load(SHARED / "lexicons")
    assert {"app.bsky.feed.post", "chat.bsky.actor.declaration", "site.standard.document"} <= {
        *sources.record_types
    }
    forgotten = []
    for nsid in sources.record_types:
        mapped = set(mapped_paths(dict(BASE.mapping_of(nsid))))
        left_out = BASE.left_out.get(nsid, {})
        assert all(left_out.values())
        declared = set(
            declared_paths(sources, sources.documents[nsid]["defs"]["main"], nsid, (f"{nsid}#main",))
        )
        assert declared
        forgotten += [
            f"{nsid} {path}"
            for path in sorted(declared - mapped)
            # An object is left out with all its properties, or by each of them.
            if not any(f"{path}.".startswith(f"{left}.") or left.startswith(f"{path}.") for left in left_out)
        ]
    assert forgotten == []
