"""The command `jitlink`."""
