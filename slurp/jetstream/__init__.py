"""Jetstream: servers, handshakes, streams, resume checks, fail-over."""
