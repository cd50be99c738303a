"""Where the variables of a link's TLS accesses are, and their TLS values.

A variable belongs to the link itself, to another link, or to a library that the executor has
loaded. Its address in the graph says which: the first two have a TLS address. Variables of
libraries are referred to by name, as by an ordinary shared library; the address that the lookup of
the name found must then be that of the calling thread's instance.
"""

from __future__ import annotations

from collections.abc import Iterable

from jitlink.errors import TLSError
from jitlink.fixup_errors import describe
from jitlink.graph import LinkGraph, Symbol
from jitlink.graph.columns import ADDRESS_MASK
from jitlink.memory.tls import TLSAllocation, TLSBlock, TLSRegistry, is_tls_address
from jitlink.memory.tls_module import TLSABI, UNDEFINED_SYMBOL, TLSRelocation, TLSValue

PHONY_SECTION = "$__PHONY"
"""The section of the zeros whose address phony externals have."""
OWN_TLS_BLOCK = -1
"""In place of a symbol's row: the start of the link's own TLS block."""
_V = TLSValue


class TLSVariables:
    """The TLS values of symbols of a graph.

    Args:
        graph: with all addresses; targets are rows of its symbols.
        registry: the executor's TLS.
        allocation: the link's TLS.
        abi: the TLS of the architecture.
    """

    def __init__(
        self,
        graph: LinkGraph,
        registry: TLSRegistry,
        allocation: TLSAllocation,
        abi: TLSABI,
    ) -> None:
        self._graph = graph
        self._registry = registry
        self._allocation = allocation
        self._abi = abi
        self._addresses = graph.symbol_addresses()
        self._words: dict[TLSRelocation, list[int]] = {}
        self._blocks: dict[str, TLSBlock] = {}
        self._libraries: dict[str, int] = {}
        phony = graph.find_section_by_name(PHONY_SECTION)
        self._phony = {block.address for block in phony.blocks} if phony is not None else set()

    async def load(
        self, wanted: Iterable[tuple[TLSValue, int]], image: bytearray, *, static: bool
    ) -> None:
        """Load the link's TLS module, and find out values.

        Args:
            wanted: values, and the rows of the symbols that have them, or `OWN_TLS_BLOCK`.
            image: the initialisation image of the link's own TLS block, if it has one.
            static: whether that must be in static TLS.

        Raises:
            TLSError: the TLS module cannot be loaded, or a symbol is no thread-local variable.
        """
        relocations = dict.fromkeys(self._relocation(value, target) for value, target in wanted)
        own = [each for each in relocations if not each.symbol and each.value is _V.TLSDESC]
        if static:
            own.append(TLSRelocation(_V.TPOFF))
        if self._allocation.block is not None:
            words = await self._allocation.load(image, own, self._abi)
            self._words.update(zip(own, words, strict=True))
        others = [each for each in relocations if each.symbol]
        for name in self._libraries:
            others += [TLSRelocation(_V.DTPMOD, name), TLSRelocation(_V.DTPOFF, name)]
        others = list(dict.fromkeys(others))
        if others:
            words = await self._allocation.resolve(others, self._blocks.values(), self._abi)
            self._words.update(zip(others, words, strict=True))
            self._check_libraries()

    def words(self, value: TLSValue, target: int) -> list[int]:
        """The words of a value that `load` was asked for."""
        relocation, block = self._relocation(value, target), self._allocation.block
        if not relocation.symbol and block is not None:
            offset = relocation.addend
            if value is _V.DTPMOD:
                return [block.module]
            if value is _V.DTPOFF:
                return [(block.dtp_offset + offset) & ADDRESS_MASK]
            if value is _V.TPOFF and block.tp_offset is not None:
                return [(block.tp_offset + offset) & ADDRESS_MASK]
        return self._words[relocation]

    def _relocation(self, value: TLSValue, target: int) -> TLSRelocation:
        """The relocation that stores a value of a symbol."""
        if target == OWN_TLS_BLOCK:
            return TLSRelocation(value)
        address, own = int(self._addresses[target]), self._allocation.block
        if own is not None and own.address <= address <= own.address + own.size:
            return TLSRelocation(value, "", address - own.address)
        symbol = Symbol(self._graph, target)
        if not address or address in self._phony:
            return TLSRelocation(value, UNDEFINED_SYMBOL)
        found = self._registry.find(address)
        if found is not None:
            block, offset = found
            self._blocks[block.name] = block
            return TLSRelocation(value, block.name, offset)
        if is_tls_address(address) or not symbol.has_name:
            raise TLSError(f"thread-local variable {describe(symbol)} does not exist")
        self._libraries[symbol.name] = address
        return TLSRelocation(value, symbol.name)

    def _check_libraries(self) -> None:
        """Check that symbols of libraries have the address of the calling thread's instance."""
        for name, address in self._libraries.items():
            module = self._words[TLSRelocation(_V.DTPMOD, name)][0]
            offset = self._words[TLSRelocation(_V.DTPOFF, name)][0]
            if not module or not self._registry.is_instance(module, offset, address):
                raise TLSError(
                    f"{name} at {address:#x} is no thread-local variable of the calling thread"
                )
