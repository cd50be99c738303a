"""Lazy re-exports: names for functions that are linked when they are first called.

::

    stubs = IndirectStubsManager(layer)
    layer.add_object(bodies, "filters.o")
    main.define(lazy_reexports(stubs, bodies, {"median": "median"}))

Code that is linked into ``main`` and calls ``median`` is ready at once; ``filters.o`` is linked
when, and if, the call is made. `jitlink.orc.stubs` says how, and what happens if it fails.

The bodies are best kept in a JITDylib that the callers' link order does not name: code that finds
the body itself links it.
"""

from __future__ import annotations

from collections.abc import Mapping

from jitlink.orc.dylib import JITDylib
from jitlink.orc.materialization import MaterializationUnit
from jitlink.orc.stubs import FUNCTION, Body, IndirectStubsManager
from jitlink.orc.symbols import JITSymbolFlags


def lazy_reexports(
    stubs: IndirectStubsManager,
    source: JITDylib,
    aliases: Mapping[str, str],
    flags: JITSymbolFlags = FUNCTION,
) -> MaterializationUnit:
    """Functions of a JITDylib under names of their own, linked when they are first called.

    Whether they exist is found out by then, too. The stubs of all aliases are made when the first
    of them is looked up.

    Args:
        stubs: makes the stubs.
        source: where the bodies are; all of its symbols are seen, exported or not.
        aliases: for each new name, that of the body.
        flags: flags of the new symbols.

    Returns:
        The definitions, to be given to `JITDylib.define`, in this JITDylib or another.
    """
    return stubs.unit({alias: Body(source, name) for alias, name in aliases.items()}, flags)
