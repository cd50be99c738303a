"""ELF x86-64: relocation types of the System V psABI, and default passes.

The addend of an object's PC-relative relocations counts from the field, that of the edge kinds
named PCRel and Branch from the end of it, hence the bias of 4.

Specification: System V psABI, AMD64 supplement, table 4.9 and appendix B.2.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from jitlink.arch.x86_64 import (
    ABSOLUTE_KINDS,
    APPLY_IRELATIVE,
    BRANCHES,
    CRTI_CRTN,
    FIXUPS,
    GOT_PLT,
    IS_ABSOLUTE,
    JUMP,
    TLS_GOT_REQUESTS,
    relax,
)
from jitlink.arch.x86_64 import X86_64EdgeKind as K
from jitlink.fixups import in_range
from jitlink.formats.elf_layout import ELFCLASS64, Identity
from jitlink.graph import LinkGraph, MemLifetime
from jitlink.graph.columns import rows_where
from jitlink.graph.link_graph import NO_ADDRESS_LIMIT
from jitlink.graph.tables import ABSOLUTE, DEFINED, EXTERNAL
from jitlink.link import PassConfiguration
from jitlink.memory.tls_module import TLSABI
from jitlink.passes.eh_frame import FramePass
from jitlink.passes.got_plt import build_got_and_stubs, got_address
from jitlink.passes.ifunc import ifunc_pass
from jitlink.passes.personality import build_personality_stubs
from jitlink.passes.tls import TLSEdgeKinds, plan_tls
from jitlink.targets.base import DirectAccess, OutOfLine, Relocation, RelocationTable
from jitlink.targets.elf import DYNAMIC_ONLY, ELFTarget, tls_module_writer
from jitlink.targets.elf_linker_defined import synthesize_elf_symbols

EM_X86_64 = 62
SMALL_CODE_LIMIT = 1 << 31
"""The end of the small code model's absolute addresses."""

# GOT entries of the TLS models. Addends count from the field here, so these have no bias.
_TLSGD = K.REQUEST_TLS_DESC_IN_GOT_AND_TRANSFORM_TO_DELTA32
_TLSLD = K.REQUEST_DTPMOD_IN_GOT_AND_TRANSFORM_TO_DELTA32
_GOTTPOFF = K.REQUEST_TPOFF_IN_GOT_AND_TRANSFORM_TO_DELTA32
_TLSDESC = K.REQUEST_TLS_DESCRIPTOR_IN_GOT_AND_TRANSFORM_TO_DELTA32

RELOCATIONS = (
    Relocation(0, "R_X86_64_NONE"),
    Relocation(1, "R_X86_64_64", K.POINTER64),
    Relocation(2, "R_X86_64_PC32", K.DELTA32),
    Relocation(3, "R_X86_64_GOT32", K.REQUEST_GOT_AND_TRANSFORM_TO_DELTA32_FROM_GOT),
    Relocation(4, "R_X86_64_PLT32", K.BRANCH_PCREL32, 4),
    Relocation(5, "R_X86_64_COPY", reason=DYNAMIC_ONLY),
    Relocation(6, "R_X86_64_GLOB_DAT", reason=DYNAMIC_ONLY),
    Relocation(7, "R_X86_64_JUMP_SLOT", reason=DYNAMIC_ONLY),
    Relocation(8, "R_X86_64_RELATIVE", reason=DYNAMIC_ONLY),
    Relocation(9, "R_X86_64_GOTPCREL", K.REQUEST_GOT_AND_TRANSFORM_TO_DELTA32),
    Relocation(10, "R_X86_64_32", K.POINTER32),
    Relocation(11, "R_X86_64_32S", K.POINTER32_SIGNED),
    Relocation(12, "R_X86_64_16", K.POINTER16),
    Relocation(13, "R_X86_64_PC16", K.DELTA16),
    Relocation(14, "R_X86_64_8", K.POINTER8),
    Relocation(15, "R_X86_64_PC8", K.DELTA8),
    Relocation(16, "R_X86_64_DTPMOD64", K.DTPMOD64),
    Relocation(17, "R_X86_64_DTPOFF64", K.DTPOFF64),
    Relocation(18, "R_X86_64_TPOFF64", K.TPOFF64),
    Relocation(19, "R_X86_64_TLSGD", _TLSGD),
    Relocation(20, "R_X86_64_TLSLD", _TLSLD),
    Relocation(21, "R_X86_64_DTPOFF32", K.DTPOFF32),
    Relocation(22, "R_X86_64_GOTTPOFF", _GOTTPOFF),
    Relocation(23, "R_X86_64_TPOFF32", K.TPOFF32),
    Relocation(24, "R_X86_64_PC64", K.DELTA64),
    Relocation(25, "R_X86_64_GOTOFF64", K.DELTA64_FROM_GOT),
    Relocation(26, "R_X86_64_GOTPC32", K.DELTA32_TO_GOT),
    Relocation(27, "R_X86_64_GOT64", K.REQUEST_GOT_AND_TRANSFORM_TO_DELTA64_FROM_GOT),
    Relocation(28, "R_X86_64_GOTPCREL64", K.REQUEST_GOT_AND_TRANSFORM_TO_DELTA64),
    Relocation(29, "R_X86_64_GOTPC64", K.DELTA64_TO_GOT),
    Relocation(30, "R_X86_64_GOTPLT64", K.REQUEST_GOT_AND_TRANSFORM_TO_DELTA64_FROM_GOT),
    Relocation(31, "R_X86_64_PLTOFF64", K.REQUEST_STUB_AND_TRANSFORM_TO_DELTA64_FROM_GOT),
    Relocation(32, "R_X86_64_SIZE32", K.SIZE32),
    Relocation(33, "R_X86_64_SIZE64", K.SIZE64),
    Relocation(34, "R_X86_64_GOTPC32_TLSDESC", _TLSDESC),
    # Marks the call through a TLS descriptor, for linkers that relax it.
    Relocation(35, "R_X86_64_TLSDESC_CALL"),
    Relocation(36, "R_X86_64_TLSDESC", reason=DYNAMIC_ONLY),
    Relocation(37, "R_X86_64_IRELATIVE", reason=DYNAMIC_ONLY),
    Relocation(38, "R_X86_64_RELATIVE64", reason=DYNAMIC_ONLY),
    # The two MPX types are deprecated: a branch with a BND prefix is a branch.
    Relocation(39, "R_X86_64_PC32_BND", K.DELTA32),
    Relocation(40, "R_X86_64_PLT32_BND", K.BRANCH_PCREL32, 4),
    Relocation(
        41, "R_X86_64_GOTPCRELX", K.REQUEST_GOT_AND_TRANSFORM_TO_PCREL32_GOT_LOAD_RELAXABLE, 4
    ),
    Relocation(
        42,
        "R_X86_64_REX_GOTPCRELX",
        K.REQUEST_GOT_AND_TRANSFORM_TO_PCREL32_GOT_LOAD_REX_RELAXABLE,
        4,
    ),
    Relocation(
        43,
        "R_X86_64_CODE_4_GOTPCRELX",
        K.REQUEST_GOT_AND_TRANSFORM_TO_PCREL32_GOT_LOAD_REX2_RELAXABLE,
        4,
    ),
    Relocation(44, "R_X86_64_CODE_4_GOTTPOFF", _GOTTPOFF),
    Relocation(45, "R_X86_64_CODE_4_GOTPC32_TLSDESC", _TLSDESC),
    # EVEX-encoded APX instructions have no form without the memory operand to relax to.
    Relocation(46, "R_X86_64_CODE_5_GOTPCRELX", K.REQUEST_GOT_AND_TRANSFORM_TO_DELTA32),
    Relocation(47, "R_X86_64_CODE_5_GOTTPOFF", _GOTTPOFF),
    Relocation(48, "R_X86_64_CODE_5_GOTPC32_TLSDESC", _TLSDESC),
    Relocation(49, "R_X86_64_CODE_6_GOTPCRELX", K.REQUEST_GOT_AND_TRANSFORM_TO_DELTA32),
    Relocation(50, "R_X86_64_CODE_6_GOTTPOFF", _GOTTPOFF),
    Relocation(51, "R_X86_64_CODE_6_GOTPC32_TLSDESC", _TLSDESC),
    # Hints for a linker that collects unused virtual functions.
    Relocation(250, "R_X86_64_GNU_VTINHERIT"),
    Relocation(251, "R_X86_64_GNU_VTENTRY"),
)


def _address_limit(graph: LinkGraph) -> int:
    """The limit of 31 bits if code holds 32-bit absolute addresses."""
    edges, symbols = graph.edge_table, graph.symbol_table
    rows = rows_where(IS_ABSOLUTE[edges.kind])
    if len(rows) == 0:
        return NO_ADDRESS_LIMIT
    # Debug information, which is not loaded, refers to other debug information in 32 bits.
    section = graph.block_table.section[edges.block[rows]]
    rows = rows[graph.section_lifetimes()[section] != MemLifetime.NO_ALLOC]
    target = edges.target[rows]
    # External symbols may be linked into the same JITDylib, and so below the limit, too, and
    # functions at addresses above it have canonical PLT entries there.
    kind, value = symbols.kind[target], symbols.value[target].view(np.int64)
    limits = np.isin(kind, (DEFINED, EXTERNAL)) | ((kind == ABSOLUTE) & ~in_range(value, 32))
    return SMALL_CODE_LIMIT if limits.any() else NO_ADDRESS_LIMIT


def _build_personality_stubs(graph: LinkGraph) -> None:
    build_personality_stubs(graph, GOT_PLT, IS_ABSOLUTE)


def _build_got_and_stubs(graph: LinkGraph) -> None:
    build_got_and_stubs(graph, GOT_PLT)


def _out_of_line(graph: LinkGraph, row: int) -> OutOfLine | None:
    from jitlink.arch.x86_64_out_of_line import out_of_line  # noqa: PLC0415 - seldom needed

    return out_of_line(graph, row)


_IDENTITY = Identity(EM_X86_64, ELFCLASS64, "little")


# LLVM differs: it links the general dynamic model only, with TLS of its own runtime.
TLS_EDGE_KINDS = TLSEdgeKinds(
    got_requests=TLS_GOT_REQUESTS,
    tpoff=frozenset({K.TPOFF64, K.TPOFF32}),
    dtpoff=frozenset({K.DTPOFF64, K.DTPOFF32}),
    dtpmod=frozenset({K.DTPMOD64}),
    abi=TLSABI(tls_module_writer("X86_64")),
)
_plan_fixups = partial(plan_tls, TLS_EDGE_KINDS)
_split_eh_frames = FramePass(neg_delta32=K.NEG_DELTA32)
_build_ifunc_stubs = ifunc_pass(GOT_PLT, APPLY_IRELATIVE)


def default_passes(_graph: LinkGraph) -> PassConfiguration:
    """The passes that every ELF x86-64 graph needs."""
    return PassConfiguration(
        fixups=FIXUPS,
        pre_prune=[synthesize_elf_symbols, _split_eh_frames],
        post_prune=[_build_ifunc_stubs, _build_personality_stubs, _build_got_and_stubs],
        pre_fixup=[relax],
        got_address=got_address,
        plan_fixups=_plan_fixups,
    )


TARGET = ELFTarget(
    identity=_IDENTITY,
    triple="x86_64-unknown-linux-gnu",
    edge_kinds=K,
    fixups=FIXUPS,
    relocations=RelocationTable(RELOCATIONS),
    passes=default_passes,
    limit=_address_limit,
    limiting=ABSOLUTE_KINDS,
    branches=BRANCHES,
    jump=JUMP,
    reentry_module="jitlink.arch.x86_64_reentry",
    direct_access=DirectAccess(
        kinds=(K.POINTER32, K.POINTER32_SIGNED, K.POINTER32_EITHER, K.DELTA32, K.PCREL32),
        got_plt=GOT_PLT,
        out_of_line=_out_of_line,
        distance=K.PCREL32,
        jump=b"\xe9",
        filler=b"\x90",
    ),
    crti_crtn=CRTI_CRTN,
)
