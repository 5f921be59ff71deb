"""The threads between Jetstream and Elasticsearch, and what they share."""
