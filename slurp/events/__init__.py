"""Events: frames of both protocols, identity, times, positions. Pure functions."""
