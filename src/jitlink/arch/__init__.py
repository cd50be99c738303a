"""Architectures: edge kinds as tables, GOT entries, stubs and relaxations (layer 2)."""
