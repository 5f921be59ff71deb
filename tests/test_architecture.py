"""Imports point downward, and no module imports itself by way of others (docs/architecture.md)."""

from __future__ import annotations

from tests import architecture


def test_every_package_and_module_has_a_layer() -> None:
    placed = {name for names in architecture.LAYERS for name in names}
    assert placed == {architecture.unit(name) for name in architecture.modules() if name != "slurp"}


def test_imports_between_packages_point_downward() -> None:
    assert architecture.upward() == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert architecture.cycles() == []
