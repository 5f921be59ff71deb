"""How fast it is, measured side by side on this machine: `python -m bench --help`."""
