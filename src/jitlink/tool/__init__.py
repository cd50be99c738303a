"""The command line (layer 5): `jitlink`."""
