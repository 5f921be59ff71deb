"""A local Jetstream server for the demo, the tests and the benchmarks: `python -m slurp.simulator`."""
