"""The options: definitions, sources (command line, environment variables, config files) and values."""
