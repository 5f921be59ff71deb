"""A real Elasticsearch node from packages: for laptops without Docker, demos and tests.

Linux and macOS. It is the server core plus security: no ingest processors, no analysis beyond the
built-in analyzers, no data streams, lifecycle, reindex or scripting, and `GET /` answers 405. On
macOS a node survives a kill -9 of its guardian process (not a kill of the program that started it).
"""
