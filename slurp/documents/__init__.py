"""Events to documents. Pure functions."""
