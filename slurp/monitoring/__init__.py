"""State of a running worker: statistics, health, metrics."""
