"""Elasticsearch: client, error classes, bulk requests, templates, daily indices, retention."""
