"""The table of common fields, and what is field_reference from it."""

from __future__ import annotations

from slurp import lexicons
from slurp.documents import field_reference
from slurp.documents.fields import FIELDS, MAX_KEYWORD, mapping
from slurp.lexicons.mapping import MAX_FIELDS, OTHER_FIELDS, count_fields


def test_the_field_reference_files_are_current() -> None:
    assert [path.name for path in field_reference.outdated()] == [], "run python -m slurp.documents build"


def test_the_common_fields_fit_beside_those_of_the_lexicons() -> None:
    common = count_fields(mapping()["properties"])
    assert common <= OTHER_FIELDS
    assert common + lexicons.committed().fields < MAX_FIELDS


def test_no_keyword_can_outgrow_a_term() -> None:
    assert [f.path for f in FIELDS if f.mapping.get("ignore_above", 0) > MAX_KEYWORD] == []


def test_no_field_is_there_twice() -> None:
    paths = [field.path for field in FIELDS]
    assert len(paths) == len({*paths})
