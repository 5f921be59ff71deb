"""Read lexicon documents from a directory and find definitions by reference.

The schema language is described in https://atproto.com/specs/lexicon
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

LEXICON_VERSION = 1

# https://atproto.com/specs/nsid: at most 317 characters, a reversed domain and a name.
_NSID = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*(\.[a-zA-Z0-9][a-zA-Z0-9-]*)+\.[a-zA-Z][a-zA-Z0-9]*")
_NSID_LENGTH = 317


class LexiconError(Exception):
    """Lexicons that cannot be used. The text is one line that names the file and how to fix it."""


@dataclass(frozen=True)
class Definition:
    """One entry of a document's `defs`, with its NSID, to which local references are relative."""

    nsid: str
    name: str
    body: Mapping[str, Any]

    @property
    def address(self) -> str:
        return f"{self.nsid}#{self.name}"


@dataclass(frozen=True)
class Lexicons:
    """The documents of one directory by NSID, and their files for messages."""

    documents: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, str]

    @cached_property
    def record_types(self) -> tuple[str, ...]:
        """NSIDs of the documents that define a record, sorted."""
        return tuple(
            sorted(
                nsid
                for nsid in self.documents
                if (main := self.find(nsid, nsid)) is not None and main.body.get("type") == "record"
            )
        )

    @cached_property
    def revision(self) -> str:
        """Hash of the content: equal for equal lexicons, independent of files and formatting."""
        content = blake2b(digest_size=16)
        for nsid in sorted(self.documents):
            content.update(orjson.dumps(self.documents[nsid], option=orjson.OPT_SORT_KEYS) + b"\n")
        return content.hexdigest()

    def find(self, ref: str, scope: str) -> Definition | None:
        """Return the definition that `ref` in the document `scope` refers to; None if there is none."""
        nsid, _, name = ref.removeprefix("lex:").partition("#")
        nsid, name = nsid or scope, name or "main"
        document = self.documents.get(nsid)
        if document is None or name not in document["defs"]:
            return None
        body = document["defs"][name]
        if not isinstance(body, dict):
            raise LexiconError(f"{self.where(nsid)}: defs.{name} is not a JSON object; fix the lexicon")
        return Definition(nsid, name, body)

    def where(self, nsid: str) -> str:
        """Return the file of a document for messages."""
        return self.files.get(nsid, nsid)


def load(directory: Path) -> Lexicons:
    """Return all `*.json` files below `directory`. Raises LexiconError for a file that is not a lexicon."""
    documents: dict[str, Mapping[str, Any]] = {}
    files: dict[str, str] = {}
    for path in _json_files(directory):
        document = _read(path)
        nsid = document["id"]
        if nsid in files:
            raise LexiconError(f"{path}: {nsid} is also in {files[nsid]}; keep one of the two files")
        documents[nsid], files[nsid] = document, str(path)
    if not documents:
        raise LexiconError(f"{directory}: contains no lexicon (*.json); use the directory of the lexicons")
    return Lexicons(documents, files)


def _json_files(directory: Path) -> Iterator[Path]:
    if not directory.is_dir():
        raise LexiconError(f"{directory}: no such directory; use the directory of the lexicons")
    yield from sorted(path for path in directory.rglob("*.json") if path.is_file())


def _read(path: Path) -> dict[str, Any]:
    try:
        document = orjson.loads(path.read_bytes())
    except OSError as error:
        raise LexiconError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    except orjson.JSONDecodeError as error:
        raise LexiconError(f"{path}: invalid JSON ({error}); fix or remove the file") from error
    if not isinstance(document, dict) or "lexicon" not in document:
        raise LexiconError(f'{path}: not a lexicon ("lexicon": 1 is missing); move the file elsewhere')
    if document["lexicon"] != LEXICON_VERSION:
        version = orjson.dumps(document["lexicon"]).decode()
        raise LexiconError(
            f"{path}: lexicon version {version} is not supported (only {LEXICON_VERSION}); remove the file"
        )
    nsid = document.get("id")
    if not isinstance(nsid, str) or len(nsid) > _NSID_LENGTH or not _NSID.fullmatch(nsid):
        raise LexiconError(f'{path}: "id" is not an NSID (like app.bsky.feed.post); fix the lexicon')
    if not isinstance(document.get("defs"), dict):
        raise LexiconError(f'{path}: "defs" is missing or not a JSON object; fix the lexicon')
    return document
