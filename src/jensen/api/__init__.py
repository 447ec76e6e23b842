"""Writing Python instead of commands: the same runs, by the same code."""
