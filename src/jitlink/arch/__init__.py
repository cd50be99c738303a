"""Architectures: tables of edge kinds and fixups, GOT entries, stubs, relaxation (layer 2)."""
