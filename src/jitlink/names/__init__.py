"""Symbol names in messages: demangling, libraries that usually define a name, similar names."""
