"""The chaos run: real parts, random faults, and an oracle at the end. `python -m tests.chaos --help`."""
