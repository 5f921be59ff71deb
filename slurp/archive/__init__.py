"""The archive of Jetstream v2: history as files of rows, with the same events as the WebSocket."""
