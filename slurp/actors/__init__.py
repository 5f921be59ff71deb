"""Names of accounts, and posts that are not stored, from an AppView."""
