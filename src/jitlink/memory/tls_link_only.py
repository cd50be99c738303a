"""TLS of code that is linked and never run: the values are assigned here, and nothing is loaded.

Module IDs are consecutive, and blocks in static TLS follow one another below the thread pointer, as
a dynamic linker assigns them; there is no limit for either. Variables of libraries that the
executor has loaded have the values that they have there.

Specification: "ELF Handling For Thread-Local Storage", variant II.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from jitlink.errors import JITLinkError
from jitlink.memory.tls import (
    UNDEFINED_SYMBOL,
    TLSBlock,
    TLSModuleLoader,
    TLSModuleSpec,
    TLSRegistry,
    TLSRelocation,
    TLSValue,
    WriteTLSModule,
    padded,
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
        self, spec: TLSModuleSpec, write: WriteTLSModule, others: Sequence[TLSBlock] = ()
    ) -> tuple[int, list[list[int]]]:
        """Assign a module ID, and the words of each relocation's value."""
        module, blocks = next(self._modules), {block.name: block for block in others}
        found = await self._find_in_libraries(spec, write, blocks)
        offset = self._assign_static(spec.size, spec.alignment) if spec.needs_static_tls else 0
        # The caller records the offsets of other blocks afterwards.
        offsets = {name: block.tp_offset for name, block in blocks.items()}
        values = []
        for relocation in spec.relocations:
            block = blocks.get(relocation.symbol)
            if block is not None:
                tp_offset = offsets[block.name]
                if relocation.value is TLSValue.TPOFF and tp_offset is None:
                    tp_offset = self._assign_static(block.size, block.alignment)
                    offsets[block.name] = tp_offset
                values.append(_words(relocation, block.module, tp_offset or 0))
            elif relocation in found:
                values.append(found[relocation])
            else:
                values.append(_words(relocation, module, offset))
        return module, values

    async def _find_in_libraries(
        self, spec: TLSModuleSpec, write: WriteTLSModule, blocks: Iterable[str]
    ) -> dict[TLSRelocation, list[int]]:
        """The words of relocations that do not depend on static TLS, against libraries' symbols."""
        dynamic = (TLSValue.DTPMOD, TLSValue.DTPOFF)
        excluded = {"", UNDEFINED_SYMBOL, *blocks}
        wanted = [r for r in spec.relocations if r.value in dynamic and r.symbol not in excluded]
        if not wanted:
            return {}
        part = TLSModuleSpec(spec.name, relocations=wanted, is_weak=True)
        handle, values = await super().load(part, write)
        await super().unload(handle)
        return dict(zip(wanted, values, strict=True))

    def _assign_static(self, size: int, alignment: int) -> int:
        """The offset from the thread pointer of another block in static TLS."""
        self._static_size = padded(self._static_size + size, alignment)
        return -self._static_size

    async def unload(self, handle: int) -> list[JITLinkError]:  # noqa: ARG002 - nothing is loaded
        """Do nothing."""
        return []

    async def reserve_static_tls(self, names: Iterable[str]) -> None:
        """Do nothing: no static TLS of the executor is used."""


def _words(relocation: TLSRelocation, module: int, tp_offset: int) -> list[int]:
    """The words of a relocation's value in a block."""
    match relocation.value:
        case TLSValue.DTPMOD:
            return [module]
        case TLSValue.DTPOFF:
            return [relocation.addend]
        case TLSValue.TPOFF:
            return [(tp_offset + relocation.addend) & _MASK]
        case TLSValue.TLSDESC:
            return [0, relocation.addend]
