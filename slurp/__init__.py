"""Elastic Skeetslurper: Bluesky's Jetstream into Elasticsearch."""

__version__ = "0.3.0"
