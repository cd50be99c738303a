"""A session as human-readable text.

One paragraph for each JITDylib, in order of creation::

    JITDylib main
      link order: main (all symbols), process (exported only)
      generators: DynamicLibraryGenerator
      resource trackers in use: 1
      symbols:
        0x00007f2a10001000  ready           main   exported callable  [a.o]
        -                   never searched  other  exported  [b.o]

    waiting lookups: 0

Each symbol, in order of name, has its address, state, name, flags and the name of its unit. The
state of a symbol that has failed is ``failed``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from jitlink.graph.text import printable
from jitlink.orc.interface import JITSymbolFlags, SymbolState

if TYPE_CHECKING:
    from jitlink.orc.dylib import Definition, JITDylib
    from jitlink.orc.interface import Query


def session_text(dylibs: Iterable[JITDylib], queries: Collection[Query]) -> str:
    """The JITDylibs of a session, and its lookups that wait; on the driver thread."""
    lines = [line for dylib in dylibs for line in [*_dylib_lines(dylib), ""]]
    lines.append(f"waiting lookups: {len(queries)}")
    for query in queries:
        waiting = ", ".join(sorted(_names_waited_for(query.missing)))
        lines.append(f"  {query.required_state.name.lower()}: {waiting}")
    return "\n".join(lines) + "\n"


def _names_waited_for(definitions: tuple[Definition, ...]) -> Iterator[str]:
    for definition in definitions:
        for query in definition.queries:
            for name in query.names_among(definition.dylib, definition.flags):
                yield f"{printable(name)} in {definition.dylib.name}"


def _dylib_lines(dylib: JITDylib) -> Iterator[str]:
    yield f"JITDylib {printable(dylib.name)}"
    order = ", ".join(f"{printable(d.name)} ({flags.value})" for d, flags in dylib.link_order)
    yield f"  link order: {order or 'nothing'}"
    generators = ", ".join(type(generator).__name__ for generator in dylib.generators)
    if generators:
        yield f"  generators: {generators}"
    yield f"  resource trackers in use: {len(dylib.trackers)}"
    yield "  symbols:" if dylib.symbols else "  no symbols"
    width = max((len(printable(name)) for name in dylib.symbols), default=0)
    for name in sorted(dylib.symbols):
        yield f"    {_symbol_line(name, dylib.symbols[name], width)}"


def _symbol_line(name: str, definition: Definition, width: int) -> str:
    has_address = definition.state >= SymbolState.RESOLVED and name in definition.addresses
    address = f"{definition.addresses[name]:#018x}" if has_address else "-"
    state = "failed" if definition.failed else definition.state.name.lower().replace("_", " ")
    flags = " ".join(
        flag.name.lower().replace("_", " ")
        for flag in JITSymbolFlags
        if flag.name and flag & definition.flags[name]
    )
    source = printable(definition.source)
    return f"{address:<18}  {state:<14}  {printable(name):<{width}}  {flags or '-'}  [{source}]"
