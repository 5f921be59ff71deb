"""Conditions on documents, as KQL for Kibana and as queries for Elasticsearch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

Query = dict[str, Any]


class Condition:
    """A condition; `kql` is stored in Kibana, `query` is the equivalent query that Kibana sends."""

    @property
    def kql(self) -> str:
        raise NotImplementedError

    @property
    def query(self) -> Query:
        raise NotImplementedError

    def leaves(self) -> Iterator[Field]:
        """Yield the conditions on single fields."""
        raise NotImplementedError


@dataclass(frozen=True)
class Field(Condition):
    """A condition on a single field."""

    field: str

    def leaves(self) -> Iterator[Field]:
        yield self


@dataclass(frozen=True)
class Is(Field):
    """The field has this value, or is a list that contains it."""

    value: str | bool

    @property
    def kql(self) -> str:
        return f"{self.field} : {orjson.dumps(self.value).decode()}"

    @property
    def query(self) -> Query:
        return {"term": {self.field: self.value}}


@dataclass(frozen=True)
class Has(Field):
    """The field has any value."""

    @property
    def kql(self) -> str:
        return f"{self.field} : *"

    @property
    def query(self) -> Query:
        return {"exists": {"field": self.field}}


@dataclass(frozen=True)
class Begins(Field):
    """A keyword field begins with `prefix`, which consists of letters, digits and dots."""

    prefix: str

    @property
    def kql(self) -> str:
        return f"{self.field} : {self.prefix}*"

    @property
    def query(self) -> Query:
        return {"prefix": {self.field: self.prefix}}


@dataclass(frozen=True)
class Between(Field):
    """A numeric field is at least `minimum`, and less than `below` if that is given."""

    minimum: int
    below: int | None = None

    @property
    def kql(self) -> str:
        lower = f"{self.field} >= {self.minimum}"
        return lower if self.below is None else f"{lower} and {self.field} < {self.below}"

    @property
    def query(self) -> Query:
        upper = {} if self.below is None else {"lt": self.below}
        return {"range": {self.field: {"gte": self.minimum, **upper}}}


@dataclass(frozen=True)
class Not(Condition):
    """The inner condition does not hold."""

    inner: Condition

    @property
    def kql(self) -> str:
        return f"not ({self.inner.kql})"

    @property
    def query(self) -> Query:
        return {"bool": {"must_not": [self.inner.query]}}

    def leaves(self) -> Iterator[Field]:
        yield from self.inner.leaves()


class _Combined(Condition):
    """A combination of conditions."""

    def __init__(self, *parts: Condition) -> None:
        # Conditions that always hold are redundant.
        self.parts = tuple(part for part in parts if part != All())

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, _Combined) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash((type(self), self.parts))

    def leaves(self) -> Iterator[Field]:
        for part in self.parts:
            yield from part.leaves()

    def _joined(self, operator: str) -> str:
        return f" {operator} ".join(
            f"({part.kql})" if len(self.parts) > 1 else part.kql for part in self.parts
        )


class All(_Combined):
    """All parts hold; without parts it always holds."""

    @property
    def kql(self) -> str:
        return self._joined("and")

    @property
    def query(self) -> Query:
        return {"bool": {"filter": [part.query for part in self.parts]}}


class Either(_Combined):
    """At least one part holds."""

    @property
    def kql(self) -> str:
        return self._joined("or")

    @property
    def query(self) -> Query:
        return {"bool": {"should": [part.query for part in self.parts], "minimum_should_match": 1}}
