"""Pairs of a container format and an architecture, and the registry of them (layer 3)."""
