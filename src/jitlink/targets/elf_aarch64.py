"""ELF AArch64: relocation types of AAELF64 for LP64, and default passes.

Big-endian objects have big-endian data and the same instructions.

Quirks: the number of R_AARCH64_NONE was 256 before it was 0. The types below 256 are those of
ILP32, whose objects are of another ELF class.

Specification: ELF for the Arm 64-bit Architecture (AAELF64), sections 5.7.3 to 5.7.12 and the
PAuth ABI extension; "Program property" in section 6.2 for GNU_PROPERTY_AARCH64_FEATURE_1_AND.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from jitlink.arch.aarch64 import (
    APPLY_IRELATIVE,
    APPLY_IRELATIVE_IMPORTS,
    BRANCHES,
    CRTI_CRTN,
    DTPOFF_KINDS,
    GOT_PLT,
    GOT_PLT_BTI,
    JUMP,
    TLS_GOT_REQUESTS,
    TPOFF_KINDS,
)
from jitlink.arch.aarch64 import AArch64EdgeKind as K
from jitlink.arch.aarch64_fixups import BIG_ENDIAN_FIXUPS, FIXUPS
from jitlink.arch.aarch64_relax import relax
from jitlink.formats.elf_layout import ELFCLASS64, Identity
from jitlink.formats.elf_notes import has_property_bit
from jitlink.graph import LinkGraph
from jitlink.link import PassConfiguration
from jitlink.memory.tls_module import TLSABI
from jitlink.passes.eh_frame import FramePass
from jitlink.passes.got_plt import build_got_and_stubs, got_address
from jitlink.passes.ifunc import ifunc_pass
from jitlink.passes.tls import TLSEdgeKinds, plan_tls
from jitlink.targets.base import Relocation, RelocationTable
from jitlink.targets.elf import DYNAMIC_ONLY, ELFTarget, tls_module_writer
from jitlink.targets.elf_linker_defined import synthesize_elf_symbols

EM_AARCH64 = 183
GNU_PROPERTY_AARCH64_FEATURE_1_AND = 0xC0000000
GNU_PROPERTY_AARCH64_FEATURE_1_BTI = 1

_AUTH = "only the process that runs the code can sign pointers"
_PATCH = "instructions are not replaced by those that a symbol stands for"
_INIT = "pointers that functions compute are not linked yet"


def _refused(first: int, reason: str, names: str) -> tuple[Relocation, ...]:
    """Types with successive numbers that are not linked."""
    return tuple(
        Relocation(first + offset, f"R_AARCH64_{name}", reason=reason)
        for offset, name in enumerate(names.split())
    )


RELOCATIONS = (
    Relocation(0, "R_AARCH64_NONE"),
    Relocation(256, "R_AARCH64_NONE"),
    Relocation(257, "R_AARCH64_ABS64", K.POINTER64),
    Relocation(258, "R_AARCH64_ABS32", K.POINTER32),
    Relocation(259, "R_AARCH64_ABS16", K.POINTER16),
    Relocation(260, "R_AARCH64_PREL64", K.DELTA64),
    Relocation(261, "R_AARCH64_PREL32", K.DELTA32),
    Relocation(262, "R_AARCH64_PREL16", K.DELTA16),
    Relocation(263, "R_AARCH64_MOVW_UABS_G0", K.MOVE_WIDE16_G0),
    Relocation(264, "R_AARCH64_MOVW_UABS_G0_NC", K.MOVE_WIDE16_G0_NC),
    Relocation(265, "R_AARCH64_MOVW_UABS_G1", K.MOVE_WIDE16_G1),
    Relocation(266, "R_AARCH64_MOVW_UABS_G1_NC", K.MOVE_WIDE16_G1_NC),
    Relocation(267, "R_AARCH64_MOVW_UABS_G2", K.MOVE_WIDE16_G2),
    Relocation(268, "R_AARCH64_MOVW_UABS_G2_NC", K.MOVE_WIDE16_G2_NC),
    Relocation(269, "R_AARCH64_MOVW_UABS_G3", K.MOVE_WIDE16_G3),
    Relocation(270, "R_AARCH64_MOVW_SABS_G0", K.MOVE_WIDE16_SIGNED_G0),
    Relocation(271, "R_AARCH64_MOVW_SABS_G1", K.MOVE_WIDE16_SIGNED_G1),
    Relocation(272, "R_AARCH64_MOVW_SABS_G2", K.MOVE_WIDE16_SIGNED_G2),
    Relocation(273, "R_AARCH64_LD_PREL_LO19", K.LDR_LITERAL19),
    Relocation(274, "R_AARCH64_ADR_PREL_LO21", K.ADR_LITERAL21),
    Relocation(275, "R_AARCH64_ADR_PREL_PG_HI21", K.PAGE21),
    Relocation(276, "R_AARCH64_ADR_PREL_PG_HI21_NC", K.PAGE21_NC),
    Relocation(277, "R_AARCH64_ADD_ABS_LO12_NC", K.PAGE_OFFSET12),
    Relocation(278, "R_AARCH64_LDST8_ABS_LO12_NC", K.PAGE_OFFSET12),
    Relocation(279, "R_AARCH64_TSTBR14", K.TEST_AND_BRANCH14_PCREL),
    Relocation(280, "R_AARCH64_CONDBR19", K.COND_BRANCH19_PCREL),
    Relocation(282, "R_AARCH64_JUMP26", K.BRANCH26_PCREL),
    Relocation(283, "R_AARCH64_CALL26", K.BRANCH26_PCREL),
    Relocation(284, "R_AARCH64_LDST16_ABS_LO12_NC", K.PAGE_OFFSET12_SHIFT1),
    Relocation(285, "R_AARCH64_LDST32_ABS_LO12_NC", K.PAGE_OFFSET12_SHIFT2),
    Relocation(286, "R_AARCH64_LDST64_ABS_LO12_NC", K.PAGE_OFFSET12_SHIFT3),
    Relocation(287, "R_AARCH64_MOVW_PREL_G0", K.MOVE_WIDE16_PCREL_G0),
    Relocation(288, "R_AARCH64_MOVW_PREL_G0_NC", K.MOVE_WIDE16_PCREL_G0_NC),
    Relocation(289, "R_AARCH64_MOVW_PREL_G1", K.MOVE_WIDE16_PCREL_G1),
    Relocation(290, "R_AARCH64_MOVW_PREL_G1_NC", K.MOVE_WIDE16_PCREL_G1_NC),
    Relocation(291, "R_AARCH64_MOVW_PREL_G2", K.MOVE_WIDE16_PCREL_G2),
    Relocation(292, "R_AARCH64_MOVW_PREL_G2_NC", K.MOVE_WIDE16_PCREL_G2_NC),
    Relocation(293, "R_AARCH64_MOVW_PREL_G3", K.MOVE_WIDE16_PCREL_G3),
    Relocation(299, "R_AARCH64_LDST128_ABS_LO12_NC", K.PAGE_OFFSET12_SHIFT4),
    Relocation(300, "R_AARCH64_MOVW_GOTOFF_G0", K.REQUEST_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G0),
    Relocation(
        301, "R_AARCH64_MOVW_GOTOFF_G0_NC", K.REQUEST_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G0_NC
    ),
    Relocation(302, "R_AARCH64_MOVW_GOTOFF_G1", K.REQUEST_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G1),
    Relocation(
        303, "R_AARCH64_MOVW_GOTOFF_G1_NC", K.REQUEST_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G1_NC
    ),
    Relocation(304, "R_AARCH64_MOVW_GOTOFF_G2", K.REQUEST_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G2),
    Relocation(
        305, "R_AARCH64_MOVW_GOTOFF_G2_NC", K.REQUEST_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G2_NC
    ),
    Relocation(306, "R_AARCH64_MOVW_GOTOFF_G3", K.REQUEST_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G3),
    Relocation(307, "R_AARCH64_GOTREL64", K.DELTA64_FROM_GOT),
    Relocation(308, "R_AARCH64_GOTREL32", K.DELTA32_FROM_GOT),
    Relocation(309, "R_AARCH64_GOT_LD_PREL19", K.REQUEST_GOT_AND_TRANSFORM_TO_LDR_LITERAL19),
    Relocation(310, "R_AARCH64_LD64_GOTOFF_LO15", K.REQUEST_GOT_AND_TRANSFORM_TO_GOT_OFFSET15),
    Relocation(311, "R_AARCH64_ADR_GOT_PAGE", K.REQUEST_GOT_AND_TRANSFORM_TO_PAGE21),
    Relocation(312, "R_AARCH64_LD64_GOT_LO12_NC", K.REQUEST_GOT_AND_TRANSFORM_TO_PAGE_OFFSET12),
    Relocation(313, "R_AARCH64_LD64_GOTPAGE_LO15", K.REQUEST_GOT_AND_TRANSFORM_TO_PAGE_OFFSET15),
    Relocation(314, "R_AARCH64_PLT32", K.DELTA32_TO_FUNCTION),
    Relocation(315, "R_AARCH64_GOTPCREL32", K.REQUEST_GOT_AND_TRANSFORM_TO_DELTA32),
    Relocation(316, "R_AARCH64_PATCHINST", reason=_PATCH),
    Relocation(317, "R_AARCH64_FUNCINIT64", reason=_INIT),
    Relocation(
        512, "R_AARCH64_TLSGD_ADR_PREL21", K.REQUEST_TLS_INDEX_IN_GOT_AND_TRANSFORM_TO_ADR_LITERAL21
    ),
    Relocation(
        513, "R_AARCH64_TLSGD_ADR_PAGE21", K.REQUEST_TLS_INDEX_IN_GOT_AND_TRANSFORM_TO_PAGE21
    ),
    Relocation(
        514,
        "R_AARCH64_TLSGD_ADD_LO12_NC",
        K.REQUEST_TLS_INDEX_IN_GOT_AND_TRANSFORM_TO_PAGE_OFFSET12,
    ),
    Relocation(
        515, "R_AARCH64_TLSGD_MOVW_G1", K.REQUEST_TLS_INDEX_IN_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G1
    ),
    Relocation(
        516,
        "R_AARCH64_TLSGD_MOVW_G0_NC",
        K.REQUEST_TLS_INDEX_IN_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G0_NC,
    ),
    Relocation(
        517, "R_AARCH64_TLSLD_ADR_PREL21", K.REQUEST_DTPMOD_IN_GOT_AND_TRANSFORM_TO_ADR_LITERAL21
    ),
    Relocation(518, "R_AARCH64_TLSLD_ADR_PAGE21", K.REQUEST_DTPMOD_IN_GOT_AND_TRANSFORM_TO_PAGE21),
    Relocation(
        519, "R_AARCH64_TLSLD_ADD_LO12_NC", K.REQUEST_DTPMOD_IN_GOT_AND_TRANSFORM_TO_PAGE_OFFSET12
    ),
    Relocation(
        520, "R_AARCH64_TLSLD_MOVW_G1", K.REQUEST_DTPMOD_IN_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G1
    ),
    Relocation(
        521,
        "R_AARCH64_TLSLD_MOVW_G0_NC",
        K.REQUEST_DTPMOD_IN_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G0_NC,
    ),
    Relocation(
        522, "R_AARCH64_TLSLD_LD_PREL19", K.REQUEST_DTPMOD_IN_GOT_AND_TRANSFORM_TO_LDR_LITERAL19
    ),
    Relocation(523, "R_AARCH64_TLSLD_MOVW_DTPREL_G2", K.MOVE_WIDE16_DTPOFF_G2),
    Relocation(524, "R_AARCH64_TLSLD_MOVW_DTPREL_G1", K.MOVE_WIDE16_DTPOFF_G1),
    Relocation(525, "R_AARCH64_TLSLD_MOVW_DTPREL_G1_NC", K.MOVE_WIDE16_DTPOFF_G1_NC),
    Relocation(526, "R_AARCH64_TLSLD_MOVW_DTPREL_G0", K.MOVE_WIDE16_DTPOFF_G0),
    Relocation(527, "R_AARCH64_TLSLD_MOVW_DTPREL_G0_NC", K.MOVE_WIDE16_DTPOFF_G0_NC),
    Relocation(528, "R_AARCH64_TLSLD_ADD_DTPREL_HI12", K.DTPOFF_HIGH12),
    Relocation(529, "R_AARCH64_TLSLD_ADD_DTPREL_LO12", K.DTPOFF_LOW12),
    Relocation(530, "R_AARCH64_TLSLD_ADD_DTPREL_LO12_NC", K.DTPOFF_LOW12_NC),
    Relocation(531, "R_AARCH64_TLSLD_LDST8_DTPREL_LO12", K.DTPOFF_LOW12),
    Relocation(532, "R_AARCH64_TLSLD_LDST8_DTPREL_LO12_NC", K.DTPOFF_LOW12_NC),
    Relocation(533, "R_AARCH64_TLSLD_LDST16_DTPREL_LO12", K.DTPOFF_LOW12_SHIFT1),
    Relocation(534, "R_AARCH64_TLSLD_LDST16_DTPREL_LO12_NC", K.DTPOFF_LOW12_SHIFT1_NC),
    Relocation(535, "R_AARCH64_TLSLD_LDST32_DTPREL_LO12", K.DTPOFF_LOW12_SHIFT2),
    Relocation(536, "R_AARCH64_TLSLD_LDST32_DTPREL_LO12_NC", K.DTPOFF_LOW12_SHIFT2_NC),
    Relocation(537, "R_AARCH64_TLSLD_LDST64_DTPREL_LO12", K.DTPOFF_LOW12_SHIFT3),
    Relocation(538, "R_AARCH64_TLSLD_LDST64_DTPREL_LO12_NC", K.DTPOFF_LOW12_SHIFT3_NC),
    Relocation(
        539,
        "R_AARCH64_TLSIE_MOVW_GOTTPREL_G1",
        K.REQUEST_TPOFF_IN_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G1,
    ),
    Relocation(
        540,
        "R_AARCH64_TLSIE_MOVW_GOTTPREL_G0_NC",
        K.REQUEST_TPOFF_IN_GOT_AND_TRANSFORM_TO_MOVE_WIDE16_G0_NC,
    ),
    Relocation(
        541, "R_AARCH64_TLSIE_ADR_GOTTPREL_PAGE21", K.REQUEST_TPOFF_IN_GOT_AND_TRANSFORM_TO_PAGE21
    ),
    Relocation(
        542,
        "R_AARCH64_TLSIE_LD64_GOTTPREL_LO12_NC",
        K.REQUEST_TPOFF_IN_GOT_AND_TRANSFORM_TO_PAGE_OFFSET12_SHIFT3,
    ),
    Relocation(
        543,
        "R_AARCH64_TLSIE_LD_GOTTPREL_PREL19",
        K.REQUEST_TPOFF_IN_GOT_AND_TRANSFORM_TO_LDR_LITERAL19,
    ),
    Relocation(544, "R_AARCH64_TLSLE_MOVW_TPREL_G2", K.MOVE_WIDE16_TPOFF_G2),
    Relocation(545, "R_AARCH64_TLSLE_MOVW_TPREL_G1", K.MOVE_WIDE16_TPOFF_G1),
    Relocation(546, "R_AARCH64_TLSLE_MOVW_TPREL_G1_NC", K.MOVE_WIDE16_TPOFF_G1_NC),
    Relocation(547, "R_AARCH64_TLSLE_MOVW_TPREL_G0", K.MOVE_WIDE16_TPOFF_G0),
    Relocation(548, "R_AARCH64_TLSLE_MOVW_TPREL_G0_NC", K.MOVE_WIDE16_TPOFF_G0_NC),
    Relocation(549, "R_AARCH64_TLSLE_ADD_TPREL_HI12", K.TPOFF_HIGH12),
    Relocation(550, "R_AARCH64_TLSLE_ADD_TPREL_LO12", K.TPOFF_LOW12),
    Relocation(551, "R_AARCH64_TLSLE_ADD_TPREL_LO12_NC", K.TPOFF_LOW12_NC),
    Relocation(552, "R_AARCH64_TLSLE_LDST8_TPREL_LO12", K.TPOFF_LOW12),
    Relocation(553, "R_AARCH64_TLSLE_LDST8_TPREL_LO12_NC", K.TPOFF_LOW12_NC),
    Relocation(554, "R_AARCH64_TLSLE_LDST16_TPREL_LO12", K.TPOFF_LOW12_SHIFT1),
    Relocation(555, "R_AARCH64_TLSLE_LDST16_TPREL_LO12_NC", K.TPOFF_LOW12_SHIFT1_NC),
    Relocation(556, "R_AARCH64_TLSLE_LDST32_TPREL_LO12", K.TPOFF_LOW12_SHIFT2),
    Relocation(557, "R_AARCH64_TLSLE_LDST32_TPREL_LO12_NC", K.TPOFF_LOW12_SHIFT2_NC),
    Relocation(558, "R_AARCH64_TLSLE_LDST64_TPREL_LO12", K.TPOFF_LOW12_SHIFT3),
    Relocation(559, "R_AARCH64_TLSLE_LDST64_TPREL_LO12_NC", K.TPOFF_LOW12_SHIFT3_NC),
    Relocation(
        560, "R_AARCH64_TLSDESC_LD_PREL19", K.REQUEST_TLSDESC_ENTRY_AND_TRANSFORM_TO_LDR_LITERAL19
    ),
    Relocation(
        561, "R_AARCH64_TLSDESC_ADR_PREL21", K.REQUEST_TLSDESC_ENTRY_AND_TRANSFORM_TO_ADR_LITERAL21
    ),
    Relocation(
        562, "R_AARCH64_TLSDESC_ADR_PAGE21", K.REQUEST_TLSDESC_ENTRY_AND_TRANSFORM_TO_PAGE21
    ),
    Relocation(
        563,
        "R_AARCH64_TLSDESC_LD64_LO12",
        K.REQUEST_TLSDESC_ENTRY_AND_TRANSFORM_TO_PAGE_OFFSET12_SHIFT3,
    ),
    Relocation(
        564, "R_AARCH64_TLSDESC_ADD_LO12", K.REQUEST_TLSDESC_ENTRY_AND_TRANSFORM_TO_PAGE_OFFSET12
    ),
    Relocation(
        565, "R_AARCH64_TLSDESC_OFF_G1", K.REQUEST_TLSDESC_ENTRY_AND_TRANSFORM_TO_MOVE_WIDE16_G1
    ),
    Relocation(
        566,
        "R_AARCH64_TLSDESC_OFF_G0_NC",
        K.REQUEST_TLSDESC_ENTRY_AND_TRANSFORM_TO_MOVE_WIDE16_G0_NC,
    ),
    # Mark instructions of an access through a TLS descriptor, for linkers that relax it.
    Relocation(567, "R_AARCH64_TLSDESC_LDR"),
    Relocation(568, "R_AARCH64_TLSDESC_ADD"),
    Relocation(569, "R_AARCH64_TLSDESC_CALL"),
    Relocation(570, "R_AARCH64_TLSLE_LDST128_TPREL_LO12", K.TPOFF_LOW12_SHIFT4),
    Relocation(571, "R_AARCH64_TLSLE_LDST128_TPREL_LO12_NC", K.TPOFF_LOW12_SHIFT4_NC),
    Relocation(572, "R_AARCH64_TLSLD_LDST128_DTPREL_LO12", K.DTPOFF_LOW12_SHIFT4),
    Relocation(573, "R_AARCH64_TLSLD_LDST128_DTPREL_LO12_NC", K.DTPOFF_LOW12_SHIFT4_NC),
    *_refused(
        580,
        _AUTH,
        "AUTH_ABS64 AUTH_MOVW_GOTOFF_G0 AUTH_MOVW_GOTOFF_G0_NC AUTH_MOVW_GOTOFF_G1 "
        "AUTH_MOVW_GOTOFF_G1_NC AUTH_MOVW_GOTOFF_G2 AUTH_MOVW_GOTOFF_G2_NC AUTH_MOVW_GOTOFF_G3 "
        "AUTH_GOT_LD_PREL19 AUTH_LD64_GOTOFF_LO15 AUTH_ADR_GOT_PAGE AUTH_LD64_GOT_LO12_NC "
        "AUTH_LD64_GOTPAGE_LO15 AUTH_GOT_ADD_LO12_NC AUTH_GOT_ADR_PREL_LO21 "
        "AUTH_TLSDESC_ADR_PAGE21 AUTH_TLSDESC_LD64_LO12 AUTH_TLSDESC_ADD_LO12",
    ),
    *_refused(
        1024,
        DYNAMIC_ONLY,
        "COPY GLOB_DAT JUMP_SLOT RELATIVE TLS_DTPMOD64 TLS_DTPREL64 TLS_TPREL64 TLSDESC IRELATIVE",
    ),
    *_refused(1041, DYNAMIC_ONLY, "AUTH_RELATIVE AUTH_GLOB_DAT AUTH_TLSDESC AUTH_IRELATIVE"),
)


def _tls_edge_kinds(tls_modules: str) -> TLSEdgeKinds:
    abi = TLSABI(tls_module_writer(tls_modules), tcb_size=16)
    return TLSEdgeKinds(TLS_GOT_REQUESTS, TPOFF_KINDS, DTPOFF_KINDS, frozenset(), abi)


_RELOCATION_TABLE = RelocationTable(RELOCATIONS)
_plan_fixups = partial(plan_tls, _tls_edge_kinds("AARCH64"))
_plan_big_endian_fixups = partial(plan_tls, _tls_edge_kinds("AARCH64_BE"))
_split_eh_frames = FramePass(neg_delta32=K.NEG_DELTA32)


def default_passes(graph: LinkGraph) -> PassConfiguration:
    """The passes that every ELF AArch64 graph needs."""
    guarded = has_property_bit(
        graph, GNU_PROPERTY_AARCH64_FEATURE_1_AND, GNU_PROPERTY_AARCH64_FEATURE_1_BTI
    )
    spec = GOT_PLT_BTI if guarded else GOT_PLT

    def build(graph: LinkGraph) -> None:
        build_got_and_stubs(graph, spec)

    is_little = graph.endianness == "little"
    return PassConfiguration(
        fixups=FIXUPS if is_little else BIG_ENDIAN_FIXUPS,
        pre_prune=[synthesize_elf_symbols, _split_eh_frames],
        post_prune=[ifunc_pass(spec, APPLY_IRELATIVE, APPLY_IRELATIVE_IMPORTS), build],
        pre_fixup=[relax],
        got_address=got_address,
        plan_fixups=_plan_fixups if is_little else _plan_big_endian_fixups,
    )


def _target(name: str, byte_order: Literal["little", "big"]) -> ELFTarget:
    return ELFTarget(
        identity=Identity(EM_AARCH64, ELFCLASS64, byte_order),
        triple=f"{name}-unknown-linux-gnu",
        edge_kinds=K,
        fixups=FIXUPS if byte_order == "little" else BIG_ENDIAN_FIXUPS,
        relocations=_RELOCATION_TABLE,
        passes=default_passes,
        branches=BRANCHES,
        jump=JUMP,
        reentry_module="jitlink.arch.aarch64_reentry",
        crti_crtn=CRTI_CRTN,
    )


TARGET = _target("aarch64", "little")
BIG_ENDIAN_TARGET = _target("aarch64_be", "big")
