"""The jitlink-check language: rules about linked memory, and their evaluation.

The command uses `Checks`. `rules` finds the rules of a file, `expressions` evaluates them, `linked`
looks up files, symbols and memory for them, `decode` decodes instructions, with a module for each
architecture.
"""

from jitlink.tool.check.checks import CheckFailedError, Checks

__all__ = ["CheckFailedError", "Checks"]
