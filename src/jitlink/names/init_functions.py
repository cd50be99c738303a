"""Names of the init functions of Python's extension modules.

Specification: PEP 489, "Export Hook Name".
"""

from __future__ import annotations

PREFIXES = ("PyInit_", "PyInitU_")


def init_function(name: str) -> str:
    """The name of a module's init function.

    Args:
        name: full name of the module, or its last part.
    """
    last = name.rpartition(".")[2]
    if last.isascii():
        return f"PyInit_{last}"
    return "PyInitU_" + last.encode("punycode").decode("ascii").replace("-", "_")
