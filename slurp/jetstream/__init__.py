"""Jetstream: servers, handshakes, streams, resume checks, failover."""
