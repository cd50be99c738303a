"""The jitlink-check language: rules about what was linked, and their evaluation.

`Checks` is what the command uses. `rules` finds the rules of a file, `expressions` evaluates them,
`linked` answers what they ask of the link, `decode` reads instructions, with a module for each
architecture.
"""

from jitlink.tool.check.checks import CheckFailedError, Checks

__all__ = ["CheckFailedError", "Checks"]
