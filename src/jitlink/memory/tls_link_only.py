"""TLS of code that is linked and never run: the values are assigned here, and nothing is loaded.

Module IDs are consecutive, and blocks in static TLS follow one another from the thread pointer, as
a dynamic linker assigns them; there is no limit for either. Variables of libraries that the
executor has loaded have the values that they have there.

Specification: "ELF Handling For Thread-Local Storage", variants I and II.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from jitlink.errors import JITLinkError
from jitlink.memory.tls import TLSBlock, TLSModuleLoader, TLSRegistry, padded
from jitlink.memory.tls_module import (
    TLSABI,
    UNDEFINED_SYMBOL,
    TLSModuleSpec,
    TLSRelocation,
    TLSValue,
)

_MASK = (1 << 64) - 1


class LinkOnlyTLS(TLSRegistry):
    """The TLS of all links of one session whose code does not run.

    Args:
        loader: finds the variables of libraries.
    """

    def __init__(self, loader: TLSModuleLoader) -> None:
        super().__init__(loader)
        self._modules = itertools.count(1)
        # Bytes of static TLS that have been assigned.
        self._static_size = 0

    async def load(
        self, spec: TLSModuleSpec, abi: TLSABI, others: Sequence[TLSBlock] = ()
    ) -> tuple[int, list[list[int]]]:
        """Assign a module ID, and the words of each relocation's value."""
        module, blocks = next(self._modules), {block.name: block for block in others}
        found = await self._find_in_libraries(spec, abi, blocks)
        offset = 0
        if spec.needs_static_tls:
            offset = self._assign_static(spec.size, spec.alignment, abi)
        # The caller records the offsets of other blocks afterwards.
        offsets = {name: block.tp_offset for name, block in blocks.items()}
        values = []
        for relocation in spec.relocations:
            block = blocks.get(relocation.symbol)
            if block is not None:
                tp_offset = offsets[block.name]
                if relocation.value is TLSValue.TPOFF and tp_offset is None:
                    tp_offset = self._assign_static(block.size, block.alignment, abi)
                    offsets[block.name] = tp_offset
                values.append(_words(relocation, block.module, tp_offset or 0, abi))
            elif relocation in found:
                values.append(found[relocation])
            elif relocation.symbol == UNDEFINED_SYMBOL:
                values.append([0] * relocation.value.words)
            else:
                values.append(_words(relocation, module, offset, abi))
        return module, values

    async def _find_in_libraries(
        self, spec: TLSModuleSpec, abi: TLSABI, blocks: Iterable[str]
    ) -> dict[TLSRelocation, list[int]]:
        """The words of relocations that do not depend on static TLS, against libraries' symbols."""
        dynamic = (TLSValue.DTPMOD, TLSValue.DTPOFF)
        excluded = {"", UNDEFINED_SYMBOL, *blocks}
        wanted = [r for r in spec.relocations if r.value in dynamic and r.symbol not in excluded]
        if not wanted:
            return {}
        part = TLSModuleSpec(spec.name, relocations=wanted, is_weak=True)
        handle, values = await super().load(part, abi)
        await super().unload(handle)
        return dict(zip(wanted, values, strict=True))

    def _assign_static(self, size: int, alignment: int, abi: TLSABI) -> int:
        """The offset from the thread pointer of another block in static TLS."""
        if abi.tcb_size is None:
            self._static_size = padded(self._static_size + size, alignment)
            return -self._static_size
        start = padded(max(self._static_size, abi.tcb_size), alignment)
        self._static_size = start + size
        return start

    async def unload(self, handle: int) -> list[JITLinkError]:  # noqa: ARG002 - nothing is loaded
        """Do nothing."""
        return []

    async def reserve_static_tls(self, names: Iterable[str]) -> None:
        """Do nothing: no static TLS of the executor is used."""


def _words(relocation: TLSRelocation, module: int, tp_offset: int, abi: TLSABI) -> list[int]:
    """The words of a relocation's value in a block."""
    match relocation.value:
        case TLSValue.DTPMOD:
            return [module]
        case TLSValue.DTPOFF:
            return [(relocation.addend - abi.dtp_bias) & _MASK]
        case TLSValue.TPOFF:
            return [(tp_offset + relocation.addend) & _MASK]
        case TLSValue.TLSDESC:
            return [0, relocation.addend]
