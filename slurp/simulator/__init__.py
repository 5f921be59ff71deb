"""A local Jetstream for the demo, the tests and the benchmarks: `python -m slurp.simulator`."""

from slurp.simulator.connection import ConnectionRecord, Manners
from slurp.simulator.faults import GARBAGE, Faults
from slurp.simulator.jetstream import Simulator

__all__ = ["GARBAGE", "ConnectionRecord", "Faults", "Manners", "Simulator"]
