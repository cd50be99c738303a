"""Executors that are other processes: ORC's SimpleRemoteEPC protocol (layer 2)."""
