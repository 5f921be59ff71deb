"""Chaos test: a real worker, node and Jetstream under random faults, checked by an oracle."""
