"""Removal of content that was deleted: versions of records, and the documents of accounts."""
