"""What linked code must know about thread-local variables, whoever has them.

A variable is the link's own, another link's, or one of a library that the executor has loaded.
Its address in the graph tells which: addresses of the first two stand for places in the storage
of a template. Variables of libraries are asked for by name, as a linked program would; the
address that the name was found at must then be that of the calling thread's instance.
"""

from __future__ import annotations

from collections.abc import Iterable

from jitlink.errors import TLSError
from jitlink.fixups import describe
from jitlink.graph import LinkGraph, Symbol
from jitlink.graph.columns import ADDRESS_MASK
from jitlink.memory.tls import (
    FIRST_ADDRESS,
    LAST_ADDRESS,
    UNDEFINED_SYMBOL,
    TLSAllocation,
    TLSBlock,
    TLSRegistry,
    TLSRequest,
    TLSValue,
    WriteTLSModule,
)

OWN_TLS_BLOCK = -1
"""In place of a symbol's row: the start of the link's own storage."""
_V = TLSValue


class TLSVariables:
    """The values that a link wants to know.

    Args:
        graph: with all addresses, where targets are symbol rows.
        storage: the executor's thread-local storage.
        lease: what the link holds of it.
        write: writes images.
    """

    def __init__(
        self, graph: LinkGraph, storage: TLSRegistry, lease: TLSAllocation, write: WriteTLSModule
    ) -> None:
        self._graph = graph
        self._storage = storage
        self._lease = lease
        self._write = write
        self._addresses = graph.symbol_addresses()
        self._words: dict[TLSRequest, list[int]] = {}
        self._blocks: dict[str, TLSBlock] = {}
        self._hosts: dict[str, int] = {}

    async def request(
        self, wanted: Iterable[tuple[TLSValue, int]], content: bytearray, *, room: bool
    ) -> None:
        """Load the link's storage, and ask for values.

        Args:
            wanted: values, and the rows of the symbols that they are about, or `OWN_TLS_BLOCK`.
            content: the initial image of the link's own storage, if it has any.
            room: whether that is to be in static room.

        Raises:
            TLSError: the storage cannot be had, or a variable is none.
        """
        requests = dict.fromkeys(self._request(value, target) for value, target in wanted)
        own = [each for each in requests if not each.symbol and each.value is _V.DESCRIPTOR]
        if room:
            own.append(TLSRequest(_V.TPOFF))
        if self._lease.block is not None:
            found = await self._lease.load(content, own, self._write)
            self._words.update(zip(own, found, strict=True))
        others = [each for each in requests if each.symbol]
        for name in self._hosts:
            others += [TLSRequest(_V.MODULE, name), TLSRequest(_V.OFFSET, name)]
        others = list(dict.fromkeys(others))
        if others:
            found = await self._lease.refer(others, self._blocks.values(), self._write)
            self._words.update(zip(others, found, strict=True))
            self._check_hosts()

    def words(self, value: TLSValue, target: int) -> list[int]:
        """The words of a value that was asked for."""
        request, block = self._request(value, target), self._lease.block
        if not request.symbol and block is not None:
            offset = request.addend
            if value is _V.MODULE:
                return [block.module]
            if value is _V.OFFSET:
                return [offset]
            if value is _V.TPOFF and block.tp_offset is not None:
                return [(block.tp_offset + offset) & ADDRESS_MASK]
        return self._words[request]

    def _request(self, value: TLSValue, target: int) -> TLSRequest:
        """What to ask for to know a value of a symbol."""
        if target == OWN_TLS_BLOCK:
            return TLSRequest(value)
        address, own = int(self._addresses[target]), self._lease.block
        if own is not None and own.address <= address <= own.address + own.size:
            return TLSRequest(value, "", address - own.address)
        symbol = Symbol(self._graph, target)
        if not address:
            return TLSRequest(value, UNDEFINED_SYMBOL)
        found = self._storage.find(address)
        if found is not None:
            block, offset = found
            self._blocks[block.name] = block
            return TLSRequest(value, block.name, offset)
        if FIRST_ADDRESS <= address < LAST_ADDRESS or not symbol.has_name:
            raise TLSError(f"thread-local variable {describe(symbol)} does not exist")
        self._hosts[symbol.name] = address
        return TLSRequest(value, symbol.name)

    def _check_hosts(self) -> None:
        for name, address in self._hosts.items():
            module = self._words[TLSRequest(_V.MODULE, name)][0]
            offset = self._words[TLSRequest(_V.OFFSET, name)][0]
            if not module or self._storage.host_address(module, offset) != address:
                raise TLSError(
                    f"{name} at {address:#x} is no thread-local variable of the calling thread"
                )
