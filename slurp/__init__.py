"""Elastic Skeetslurper: Bluesky's Jetstream into Elasticsearch."""

__version__ = "0.2.0"
