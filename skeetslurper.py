#!/usr/bin/env python3
"""Slurp Bluesky's Jetstream into Elasticsearch. Try --help."""

import sys

from slurp.cli import main

if __name__ == "__main__":
    sys.exit(main())
