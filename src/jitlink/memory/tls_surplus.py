"""Why a TLS module is not loaded: the surplus of static TLS, which is measured by trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jitlink.errors import ExecutorError, StaticTLSError, TLSError
from jitlink.memory.tls import padded
from jitlink.memory.tls_module import TLSModuleSpec, TLSRelocation, TLSValue

if TYPE_CHECKING:
    from jitlink.memory.tls import (
        TLSBlock,
        TLSRegistry,
    )
    from jitlink.memory.tls_module import TLSABI

_SURPLUS_LIMIT = 1 << 24
"""More than the surplus of any C library, in bytes."""


async def explain(
    registry: TLSRegistry,
    spec: TLSModuleSpec,
    abi: TLSABI,
    others: Sequence[TLSBlock],
    error: ExecutorError,
) -> TLSError:
    """Why a TLS module was not loaded, which takes some dozens of trials to find out.

    Args:
        registry: of the executor that could not load it.
        spec: the TLS module.
        abi: the TLS of the architecture.
        others: blocks of other links that its relocations are against.
        error: the dynamic linker's.
    """
    general = TLSError(f"the TLS module cannot be loaded: {error}")
    if not spec.needs_static_tls:
        return general
    dynamic = [each for each in spec.relocations if each.value is not TLSValue.TPOFF]
    if not await registry.can_load(spec._replace(relocations=dynamic), abi):
        return general
    size, alignment, why = spec.size, spec.alignment, ""
    needed = padded(size, alignment)
    if not size:
        lacking = [each for each in others if each.tp_offset is None]
        if not lacking:
            why = "initial exec access to a variable of a library that is not in static TLS"
            return TLSError(f"{why}: {error}")
        size = max(each.size for each in lacking)
        needed = sum(padded(each.size, each.alignment) for each in lacking)
        alignment = max(each.alignment for each in lacking)
        why = ", or a thread has used the variable already"
    return await exhausted(registry, size, alignment, abi, why=why, needed=needed)


async def exhausted(
    registry: TLSRegistry,
    size: int,
    alignment: int,
    abi: TLSABI,
    *,
    why: str = "",
    needed: int = 0,
    library: str | None = None,
) -> StaticTLSError:
    """The error that a block does not fit the static TLS surplus.

    Args:
        registry: of the executor.
        size: of the block, in bytes.
        alignment: of the block, in bytes.
        abi: the TLS of the architecture.
        why: the cause if it may be another one.
        needed: size of all blocks that have to fit; 0 for this one.
        library: path of the shared library that has the block.
    """
    surplus, most = await _measure_surplus(registry, abi)
    extra = (needed or padded(size, alignment)) + alignment - surplus
    # All blocks in static TLS are aligned to what the process was started with.
    tunables = registry.tunables_for(extra) if extra > 0 and alignment <= most else None
    return StaticTLSError(size, alignment, surplus, most, why, tunables=tunables, library=library)


async def _measure_surplus(registry: TLSRegistry, abi: TLSABI) -> tuple[int, int]:
    """The largest size and the largest alignment of a block that the surplus has left."""

    async def fits(size: int, alignment: int) -> bool:
        relocation = TLSRelocation(TLSValue.TPOFF)
        name = registry.new_module_name()
        spec = TLSModuleSpec(name, b"", size, alignment, (relocation,))
        return await registry.can_load(spec, abi)

    # The alignment first: a trial may make the C library lose some of it; see `padded`.
    alignment = 1
    while alignment < _SURPLUS_LIMIT and await fits(2 * alignment, 2 * alignment):
        alignment *= 2
    size, step = 0, _SURPLUS_LIMIT
    while step:
        if await fits(size + step, 1):
            size += step
        step >>= 1
    return size, alignment
