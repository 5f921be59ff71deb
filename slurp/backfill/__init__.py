"""Missing events from the archive of a server: they are read while live reading goes on."""
