"""ELF RISC-V of 32 and 64 bits: relocation types of the psABI, ABI checks, default passes.

Both sizes have the same relocation types. Calls are R_RISCV_CALL_PLT whether there is a PLT or
not. R_RISCV_RELAX refers to the relocation before it, at the same offset.

Specification: RISC-V ELF psABI, chapters "ELF Object Files" and "Relocations".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np

from jitlink.arch.riscv import (
    APPLY_IRELATIVE,
    BRANCHES,
    DTP_BIAS,
    DTPREL_KINDS,
    FIXUPS,
    GOT_PLT,
    JUMP,
    TLS_GOT_REQUESTS,
    TPREL_KINDS,
    K,
    select_jumps,
)
from jitlink.arch.riscv_pairs import pair_hi_lo
from jitlink.arch.riscv_relax import relax
from jitlink.arch.riscv_tls import build_tls_descriptors
from jitlink.fixups import FixupTable
from jitlink.formats.elf_layout import ELFCLASS32, ELFCLASS64, Identity
from jitlink.graph import LinkGraph, MemLifetime
from jitlink.graph.columns import rows_where
from jitlink.graph.link_graph import NO_ADDRESS_LIMIT
from jitlink.graph.tables import DEFINED, EXTERNAL
from jitlink.link import PassConfiguration
from jitlink.memory.tls_module import TLSABI
from jitlink.passes.eh_frame import FramePass
from jitlink.passes.got_plt import build_got_and_stubs, got_address
from jitlink.passes.ifunc import ifunc_pass
from jitlink.passes.tls import CheckedPlan, TLSEdgeKinds, plan_tls
from jitlink.targets.base import Relocation, RelocationTable
from jitlink.targets.elf import DYNAMIC_ONLY, ELFTarget, tls_module_writer
from jitlink.targets.elf_linker_defined import synthesize_elf_symbols
from jitlink.targets.riscv_attributes import EF_RISCV_FLOAT_ABI, EF_RISCV_RVE, check_abi

EM_RISCV = 243
ABSOLUTE_CODE_LIMIT = (1 << 31) - 0x800
"""The end of the addresses that ``lui`` and a signed lower half can form on RV64."""

_VENDOR = "it is vendor-specific"

RELOCATIONS = (
    Relocation(0, "R_RISCV_NONE"),
    Relocation(1, "R_RISCV_32", K.R_RISCV_32),
    Relocation(2, "R_RISCV_64", K.R_RISCV_64),
    Relocation(3, "R_RISCV_RELATIVE", reason=DYNAMIC_ONLY),
    Relocation(4, "R_RISCV_COPY", reason=DYNAMIC_ONLY),
    Relocation(5, "R_RISCV_JUMP_SLOT", reason=DYNAMIC_ONLY),
    Relocation(6, "R_RISCV_TLS_DTPMOD32", reason=DYNAMIC_ONLY),
    Relocation(7, "R_RISCV_TLS_DTPMOD64", reason=DYNAMIC_ONLY),
    Relocation(8, "R_RISCV_TLS_DTPREL32", K.R_RISCV_TLS_DTPREL32),
    Relocation(9, "R_RISCV_TLS_DTPREL64", K.R_RISCV_TLS_DTPREL64),
    Relocation(10, "R_RISCV_TLS_TPREL32", reason=DYNAMIC_ONLY),
    Relocation(11, "R_RISCV_TLS_TPREL64", reason=DYNAMIC_ONLY),
    Relocation(12, "R_RISCV_TLSDESC", reason=DYNAMIC_ONLY),
    Relocation(16, "R_RISCV_BRANCH", K.R_RISCV_BRANCH),
    Relocation(17, "R_RISCV_JAL", K.R_RISCV_JAL),
    # Deprecated, and the same as the next one.
    Relocation(18, "R_RISCV_CALL", K.R_RISCV_CALL_PLT),
    Relocation(19, "R_RISCV_CALL_PLT", K.R_RISCV_CALL_PLT),
    Relocation(20, "R_RISCV_GOT_HI20", K.R_RISCV_GOT_HI20),
    Relocation(21, "R_RISCV_TLS_GOT_HI20", K.R_RISCV_TLS_GOT_HI20),
    Relocation(22, "R_RISCV_TLS_GD_HI20", K.R_RISCV_TLS_GD_HI20),
    Relocation(23, "R_RISCV_PCREL_HI20", K.R_RISCV_PCREL_HI20),
    Relocation(24, "R_RISCV_PCREL_LO12_I", K.R_RISCV_PCREL_LO12_I),
    Relocation(25, "R_RISCV_PCREL_LO12_S", K.R_RISCV_PCREL_LO12_S),
    Relocation(26, "R_RISCV_HI20", K.R_RISCV_HI20),
    Relocation(27, "R_RISCV_LO12_I", K.R_RISCV_LO12_I),
    Relocation(28, "R_RISCV_LO12_S", K.R_RISCV_LO12_S),
    Relocation(29, "R_RISCV_TPREL_HI20", K.R_RISCV_TPREL_HI20),
    Relocation(30, "R_RISCV_TPREL_LO12_I", K.R_RISCV_TPREL_LO12_I),
    Relocation(31, "R_RISCV_TPREL_LO12_S", K.R_RISCV_TPREL_LO12_S),
    # Marks an instruction for linkers that relax the local exec model.
    Relocation(32, "R_RISCV_TPREL_ADD"),
    Relocation(33, "R_RISCV_ADD8", K.R_RISCV_ADD8),
    Relocation(34, "R_RISCV_ADD16", K.R_RISCV_ADD16),
    Relocation(35, "R_RISCV_ADD32", K.R_RISCV_ADD32),
    Relocation(36, "R_RISCV_ADD64", K.R_RISCV_ADD64),
    Relocation(37, "R_RISCV_SUB8", K.R_RISCV_SUB8),
    Relocation(38, "R_RISCV_SUB16", K.R_RISCV_SUB16),
    Relocation(39, "R_RISCV_SUB32", K.R_RISCV_SUB32),
    Relocation(40, "R_RISCV_SUB64", K.R_RISCV_SUB64),
    Relocation(41, "R_RISCV_GOT32_PCREL", K.R_RISCV_GOT32_PCREL),
    Relocation(43, "R_RISCV_ALIGN", K.ALIGN_RELAXABLE),
    Relocation(44, "R_RISCV_RVC_BRANCH", K.R_RISCV_RVC_BRANCH),
    Relocation(45, "R_RISCV_RVC_JUMP", K.R_RISCV_RVC_JUMP),
    Relocation(51, "R_RISCV_RELAX", K.RELAX),
    Relocation(52, "R_RISCV_SUB6", K.R_RISCV_SUB6),
    Relocation(53, "R_RISCV_SET6", K.R_RISCV_SET6),
    Relocation(54, "R_RISCV_SET8", K.R_RISCV_SET8),
    Relocation(55, "R_RISCV_SET16", K.R_RISCV_SET16),
    Relocation(56, "R_RISCV_SET32", K.R_RISCV_SET32),
    Relocation(57, "R_RISCV_32_PCREL", K.R_RISCV_32_PCREL),
    Relocation(58, "R_RISCV_IRELATIVE", reason=DYNAMIC_ONLY),
    Relocation(59, "R_RISCV_PLT32", K.R_RISCV_PLT32),
    Relocation(60, "R_RISCV_SET_ULEB128", K.R_RISCV_SET_ULEB128),
    Relocation(61, "R_RISCV_SUB_ULEB128", K.R_RISCV_SUB_ULEB128),
    Relocation(62, "R_RISCV_TLSDESC_HI20", K.R_RISCV_TLSDESC_HI20),
    # Differ from PC-relative low parts, and mark the call, for linkers that relax descriptors.
    Relocation(63, "R_RISCV_TLSDESC_LOAD_LO12", K.R_RISCV_PCREL_LO12_I),
    Relocation(64, "R_RISCV_TLSDESC_ADD_LO12", K.R_RISCV_PCREL_LO12_I),
    Relocation(65, "R_RISCV_TLSDESC_CALL"),
    Relocation(191, "R_RISCV_VENDOR", reason=_VENDOR),
    *(Relocation(n, f"R_RISCV_CUSTOM{n}", reason=_VENDOR) for n in range(192, 256)),
)

_RELOCATION_TABLE = RelocationTable(RELOCATIONS)
_split_eh_frames = FramePass(neg_delta32=K.NEG_DELTA32)

_ABSOLUTE_KINDS = frozenset((K.R_RISCV_HI20, K.R_RISCV_LO12_I, K.R_RISCV_LO12_S, K.R_RISCV_32))
_IS_ABSOLUTE = np.zeros(len(K), np.bool_)
_IS_ABSOLUTE[list(_ABSOLUTE_KINDS)] = True


def _address_limit(graph: LinkGraph) -> int:
    """The end of the addresses that absolute relocations can hold."""
    if graph.pointer_size == 4:
        return 1 << 32
    edges, symbols = graph.edge_table, graph.symbol_table
    rows = rows_where(_IS_ABSOLUTE[edges.kind])
    # Debug information, which is not loaded, refers to other debug information in 32 bits.
    section = graph.block_table.section[edges.block[rows]]
    rows = rows[graph.section_lifetimes()[section] != MemLifetime.NO_ALLOC]
    # External symbols may be linked into the same JITDylib.
    limits = np.isin(symbols.kind[edges.target[rows]], (DEFINED, EXTERNAL)).any()
    return ABSOLUTE_CODE_LIMIT if limits else NO_ADDRESS_LIMIT


_FLOAT_ABI_DOUBLE = 0x4
_ABI_FLAGS = EF_RISCV_FLOAT_ABI | EF_RISCV_RVE
# Size in bytes of floating-point registers that hold arguments, by EF_RISCV_FLOAT_ABI.
_FLOAT_SIZES = {0: 0, 2: 4, 4: 8, 6: 8}


def _abi_flags(graph: LinkGraph) -> int:
    """The flags that all objects of a graph have in common, and all libraries of a process.

    Without objects they are those of LP64D and ILP32D, which Linux distributions have.
    """
    return graph.origin_flags[0] & _ABI_FLAGS if graph.origin_flags else _FLOAT_ABI_DOUBLE


@cache
def _tls_edge_kinds(bits: int, flags: int) -> TLSEdgeKinds:
    writer = tls_module_writer(f"RISCV{bits}", flags)
    abi = TLSABI(writer, tcb_size=0, dtp_bias=DTP_BIAS)
    return TLSEdgeKinds(TLS_GOT_REQUESTS[bits], TPREL_KINDS, DTPREL_KINDS, frozenset(), abi)


def _plan_fixups(graph: LinkGraph, fixups: FixupTable) -> CheckedPlan:
    kinds = _tls_edge_kinds(8 * graph.pointer_size, _abi_flags(graph))
    return plan_tls(kinds, graph, fixups)


def _build_descriptors(graph: LinkGraph) -> None:
    build_tls_descriptors(graph, _FLOAT_SIZES[_abi_flags(graph) & EF_RISCV_FLOAT_ABI])


def _passes(bits: int) -> Callable[[LinkGraph], PassConfiguration]:
    build_ifunc_stubs = ifunc_pass(GOT_PLT[bits], APPLY_IRELATIVE[bits])
    build_got = partial(build_got_and_stubs, spec=GOT_PLT[bits])

    def default_passes(graph: LinkGraph) -> PassConfiguration:  # noqa: ARG001 - the same for all graphs
        """The passes that every ELF RISC-V graph needs."""
        return PassConfiguration(
            fixups=FIXUPS[bits],
            pre_prune=[check_abi, synthesize_elf_symbols, _split_eh_frames],
            post_prune=[build_ifunc_stubs, select_jumps, _build_descriptors, build_got, relax],
            pre_fixup=[pair_hi_lo],
            got_address=got_address,
            plan_fixups=_plan_fixups,
        )

    return default_passes


def _target(bits: int) -> ELFTarget:
    return ELFTarget(
        identity=Identity(EM_RISCV, ELFCLASS64 if bits == 64 else ELFCLASS32, "little"),
        triple=f"riscv{bits}-unknown-linux-gnu",
        edge_kinds=K,
        fixups=FIXUPS[bits],
        relocations=_RELOCATION_TABLE,
        passes=_passes(bits),
        limit=_address_limit,
        limiting=_ABSOLUTE_KINDS,
        branches=BRANCHES,
        jump=JUMP,
        reentry_module="jitlink.arch.riscv_reentry" if bits == 64 else "",
    )


TARGET32, TARGET64 = _target(32), _target(64)
