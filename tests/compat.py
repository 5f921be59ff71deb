"""`python -m tests.compat VERSION…`: the tests that meet Elasticsearch, on other releases of it.

A release that no Java on this machine can start is said and left out.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from slurp.embedded.errors import EmbeddedNodeError
from slurp.embedded.java import find_runtime

HERE = Path(__file__).parent
# What takes a node, or one of the fixtures that have one.
NODE = ("es_node", "own_node", "fresh_index_prefix", "indexer: InProcess")
# The node itself, which is tested as the default release.
NOT_HERE = ("test_embedded.py", "test_embedded_parts.py", "test_elk.py")


def main(versions: list[str]) -> int:
    """0 when all that could be started passed; 2 when none could be started."""
    files = [
        str(path)
        for path in sorted(HERE.glob("test_*.py"))
        if path.name not in NOT_HERE and any(word in path.read_text(encoding="utf-8") for word in NODE)
    ]
    codes = []
    for version in versions:
        try:
            java = find_runtime(version)
        except EmbeddedNodeError as error:
            print(f"left out: {error}", flush=True)
            continue
        print(f"Elasticsearch {version} on Java {java.major}: {len(files)} files", flush=True)
        command = [sys.executable, "-m", "pytest", f"--es-version={version}", *files]
        codes.append(subprocess.run(command, check=False).returncode)
    return max(codes, default=2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
