"""One module a command: reads the call, does it, prints."""
