"""The HTTP server of `--http`: page, health checks, metrics."""
