"""Compile lexicons of the AT Protocol to an Elasticsearch mapping.

`python -m slurp.lexicons build DIR` generates the committed assets. The worker reads those; at run time it
compiles and merges only the lexicons of `--lexicons DIR`.
"""

from slurp.lexicons.asset import committed
from slurp.lexicons.known import KnownFields
from slurp.lexicons.mapping import Compiled, compile, merge
from slurp.lexicons.reader import LexiconError, Lexicons, load
from slurp.lexicons.shapes import RecordShapes

__all__ = [
    "Compiled",
    "KnownFields",
    "LexiconError",
    "Lexicons",
    "RecordShapes",
    "committed",
    "compile",
    "load",
    "merge",
]
