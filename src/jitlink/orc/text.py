"""A session as text for people.

One paragraph for each JITDylib, in order of creation::

    JITDylib main
      link order: main (all symbols), process (exported only)
      generators: DynamicLibraryGenerator
      symbols:
        0x00007f2a10001000  ready          exported callable  main       a.o
        -                   never searched exported           other      b.o
      waiting lookups: 1

Symbols come by name; after the flags, the name and what defines it. What failed is marked so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from jitlink.graph.text import printable
from jitlink.orc.interface import JITSymbolFlags, SymbolState

if TYPE_CHECKING:
    from jitlink.orc.dylib import Definition, JITDylib
    from jitlink.orc.session import ExecutionSession


def session_text(session: ExecutionSession) -> str:
    """All JITDylibs of a session; to be called on its thread."""
    lines = [line for dylib in session.dylibs.values() for line in [*_dylib_lines(dylib), ""]]
    lines.append(f"waiting lookups: {len(session.queries)}")
    for query in session.queries:
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
    generators = ", ".join(type(each).__name__ for each in dylib.generators)
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
