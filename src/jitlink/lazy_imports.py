"""The public names of a package, each imported when it is first used.

A package's `__init__` has one table of its public names, and imports the same names for type
checkers, which do not evaluate the table::

    if TYPE_CHECKING:
        from jitlink.library import Library as Library
        from jitlink.loading import load as load
    else:
        __getattr__, __dir__, __all__ = attach(
            __name__, {"jitlink.library": ("Library",), "jitlink.loading": ("load",)}
        )

The `as` makes an import a re-export (PEP 484). The assignment is hidden from type checkers because
a module's `__getattr__` would make them accept every name.

Specification: PEP 562.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping


def attach(
    package: str, table: Mapping[str, Iterable[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """Return a package's `__getattr__`, its `__dir__` and its `__all__`.

    Args:
        package: the package's full name.
        table: full names of modules, and the names that the package has from each.
    """
    modules = {name: module for module, names in table.items() for name in names}
    public = sorted(modules)

    def get(name: str) -> object:
        module = modules.get(name)
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(importlib.import_module(module), name)
        setattr(sys.modules[package], name, value)
        return value

    return get, public.copy, public
