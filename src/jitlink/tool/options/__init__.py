"""The command line: its options as a table, their values, help, manual and reference."""
