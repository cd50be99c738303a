"""Symbol names: demangling, libraries that usually define a name, similar names, init functions."""
