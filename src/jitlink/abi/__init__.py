"""Calling conventions as data (layer 2): where arguments of C types go, and where results are."""
