"""What a panel counts: conditions, said to Kibana in its language (KQL) and to Elasticsearch as queries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

Query = dict[str, Any]


class Condition:
    """`kql` is what Kibana stores, `query` what it asks of Elasticsearch."""

    @property
    def kql(self) -> str:
        raise NotImplementedError

    @property
    def query(self) -> Query:
        raise NotImplementedError

    def leaves(self) -> Iterator[Field]:
        """The conditions on single fields."""
        raise NotImplementedError


@dataclass(frozen=True)
class Field(Condition):
    field: str

    def leaves(self) -> Iterator[Field]:
        yield self


@dataclass(frozen=True)
class Is(Field):
    """The field has this value, one of them at least."""

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
    """A keyword begins like this; `prefix` is letters, digits and dots."""

    prefix: str

    @property
    def kql(self) -> str:
        return f"{self.field} : {self.prefix}*"

    @property
    def query(self) -> Query:
        return {"prefix": {self.field: self.prefix}}


@dataclass(frozen=True)
class Between(Field):
    """A number from `least` on, and below `below` if that is given."""

    least: int
    below: int | None = None

    @property
    def kql(self) -> str:
        above = f"{self.field} >= {self.least}"
        return above if self.below is None else f"{above} and {self.field} < {self.below}"

    @property
    def query(self) -> Query:
        upper = {} if self.below is None else {"lt": self.below}
        return {"range": {self.field: {"gte": self.least, **upper}}}


@dataclass(frozen=True)
class Not(Condition):
    inner: Condition

    @property
    def kql(self) -> str:
        return f"not ({self.inner.kql})"

    @property
    def query(self) -> Query:
        return {"bool": {"must_not": [self.inner.query]}}

    def leaves(self) -> Iterator[Field]:
        yield from self.inner.leaves()


class _Several(Condition):
    def __init__(self, *parts: Condition) -> None:
        # What always holds says nothing.
        self.parts = tuple(part for part in parts if part != All())

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, _Several) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash((type(self), self.parts))

    def leaves(self) -> Iterator[Field]:
        for part in self.parts:
            yield from part.leaves()

    def _joined(self, word: str) -> str:
        return f" {word} ".join(f"({part.kql})" if len(self.parts) > 1 else part.kql for part in self.parts)


class All(_Several):
    """All of them hold; of none, always."""

    @property
    def kql(self) -> str:
        return self._joined("and")

    @property
    def query(self) -> Query:
        return {"bool": {"filter": [part.query for part in self.parts]}}


class Either(_Several):
    """One of them holds at least."""

    @property
    def kql(self) -> str:
        return self._joined("or")

    @property
    def query(self) -> Query:
        return {"bool": {"should": [part.query for part in self.parts], "minimum_should_match": 1}}
