"""What the name of a symbol tells people: as source text, where it usually is, what is like it."""
