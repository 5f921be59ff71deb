"""The table of common fields, and the files generated from it."""

from __future__ import annotations

from slurp import lexicons
from slurp.documents import field_reference
from slurp.documents.fields import FIELDS, MAX_KEYWORD, mapping
from slurp.lexicons.mapping import MAX_FIELDS, OTHER_FIELDS, count_fields


def test_the_generated_files_are_current() -> None:
    assert [path.name for path in field_reference.outdated()] == [], "run python -m slurp.documents build"


def test_common_fields_and_lexicon_fields_fit_into_one_mapping() -> None:
    common = count_fields(mapping()["properties"])
    assert common <= OTHER_FIELDS
    assert common + lexicons.committed().fields < MAX_FIELDS


def test_no_keyword_can_exceed_the_term_limit() -> None:
    assert [f.path for f in FIELDS if (f.mapping or {}).get("ignore_above", 0) > MAX_KEYWORD] == []


def test_field_paths_are_unique() -> None:
    paths = [field.path for field in FIELDS]
    assert len(paths) == len({*paths})
