"""File formats: bytes to sections, blocks, symbols and raw relocations (layer 2)."""
