"""One module a command; each has ``run(call) -> exit code``."""
