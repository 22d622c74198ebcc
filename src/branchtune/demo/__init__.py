"""The embedded example: configuration, committed results, and the command that runs it."""
