"""Lexicons of the AT Protocol, compiled to an Elasticsearch mapping.

`python -m slurp.lexicons build DIR` makes the committed assets; the worker reads those, and
compiles and merges only what `--lexicons DIR` adds.
"""

from slurp.lexicons.asset import committed
from slurp.lexicons.known import KnownFields
from slurp.lexicons.mapping import Compiled, compile, merge
from slurp.lexicons.reader import LexiconError, Lexicons, load

__all__ = ["Compiled", "KnownFields", "LexiconError", "Lexicons", "committed", "compile", "load", "merge"]
