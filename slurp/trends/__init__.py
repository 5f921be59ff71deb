"""Trends: the most frequent values of each hour and day, kept longer than the events."""
