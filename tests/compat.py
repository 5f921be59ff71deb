"""Run the tests that use Elasticsearch on other releases: `python -m tests.compat VERSION…`.

A release that no Java on this machine can run is reported and skipped.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from slurp.embedded.errors import EmbeddedNodeError
from slurp.embedded.java import find_runtime

HERE = Path(__file__).parent
# Fixtures with an Elasticsearch node.
NODE_FIXTURES = ("es_node", "own_node", "fresh_index_prefix", "indexer: InProcess")
# Tests of the embedded node itself, which depend on the default release.
EXCLUDED = ("test_embedded.py", "test_embedded_parts.py", "test_elk.py")


def main(versions: list[str]) -> int:
    """Return the worst exit code of pytest, 2 if no release could be started."""
    files = [
        str(path)
        for path in sorted(HERE.glob("test_*.py"))
        if path.name not in EXCLUDED and any(one in path.read_text("utf-8") for one in NODE_FIXTURES)
    ]
    codes = []
    for version in versions:
        try:
            java = find_runtime(version)
        except EmbeddedNodeError as error:
            print(f"skipped: {error}", flush=True)
            continue
        print(f"Elasticsearch {version} on Java {java.major}: {len(files)} files", flush=True)
        command = [sys.executable, "-m", "pytest", f"--es-version={version}", *files]
        codes.append(subprocess.run(command, check=False).returncode)
    return max(codes, default=2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
