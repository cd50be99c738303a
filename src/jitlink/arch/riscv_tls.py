"""TLS descriptors of RISC-V, which jitlink resolves itself: C libraries in use have none.

A TLS descriptor is two words, a function and its argument. Code calls the function, with the
descriptor's address in a0 and the return address in t0, for the offset of a variable from the
thread pointer. The function may change a0 and t0 only. Here the argument is the address of a
tls_index, which the C library fills like those of the general dynamic model, and the function is
code in the graph that calls `__tls_get_addr`, all other registers saved. So a descriptor takes no
static TLS.

Linkers relax accesses through descriptors to initial exec or local exec in programs; here the TLS
blocks of position-independent code are not static. Vector registers are not saved: `__tls_get_addr`
changes them at most where a thread first uses a TLS block.

Specification: RISC-V ELF psABI, "TLS Descriptors".
"""

from __future__ import annotations

from functools import cache

import numpy as np

from jitlink.arch.riscv import GOT_PLT, K
from jitlink.graph import LinkGraph, MemProt, Symbol
from jitlink.graph.columns import rows_where
from jitlink.graph.edges import KEEP_ALIVE
from jitlink.passes.got_plt import TLS_INFO_SECTION, add_equal_blocks

GET_ADDRESS = "__tls_get_addr"
RESOLVER_SECTION = "$__TLSDESC_RESOLVER"
_ZERO, _RA, _SP, _TP, _T0, _T1, _A0 = 0, 1, 2, 4, 5, 6, 10
# Integer registers that a call may change, but for a0; and floating-point ones.
_TEMPORARIES = (_RA, _T0, _T1, 7, *range(11, 18), *range(28, 32))
_FLOAT_TEMPORARIES = (*range(8), *range(10, 18), *range(28, 32))
_STACK_ALIGNMENT = 16
_LOAD, _STORE, _FLOAT_LOAD, _FLOAT_STORE = 0x03, 0x23, 0x07, 0x27
_WIDTH_CODES = {4: 2, 8: 3}
"""The funct3 of loads and stores, by their size in bytes."""


def _load(opcode: int, size: int, register: int, offset: int, base: int) -> int:
    return offset << 20 | base << 15 | _WIDTH_CODES[size] << 12 | register << 7 | opcode


def _store(opcode: int, size: int, register: int, offset: int, base: int) -> int:
    high, low = offset >> 5, offset & 0x1F
    return high << 25 | register << 20 | base << 15 | _WIDTH_CODES[size] << 12 | low << 7 | opcode


def _add_immediate(register: int, base: int, value: int) -> int:
    return (value & 0xFFF) << 20 | base << 15 | register << 7 | 0x13


@cache
def resolver(word: int, float_size: int) -> bytes:
    """The function of TLS descriptors; its last word is the address of `__tls_get_addr`.

    Args:
        word: size of a pointer in bytes.
        float_size: size in bytes of the floating-point registers that calls may change, 0 if there
            are none.
    """
    saved = [(_STORE, _LOAD, word, each) for each in _TEMPORARIES]
    if float_size:
        saved += [(_FLOAT_STORE, _FLOAT_LOAD, float_size, each) for each in _FLOAT_TEMPORARIES]
    offsets = np.cumsum([0, *(size for _, _, size, _ in saved)]).tolist()
    frame = -(-offsets[-1] // _STACK_ALIGNMENT) * _STACK_ALIGNMENT
    places = list(zip(saved, offsets[:-1], strict=True))
    code = [_add_immediate(_SP, _SP, -frame)]
    code += [_store(store, size, register, at, _SP) for (store, _, size, register), at in places]
    code += [
        _load(_LOAD, word, _A0, word, _A0),  # l[wd] a0, WORD(a0): the tls_index
        _load(_LOAD, word, _T1, 0, _A0),  # l[wd] t1, 0(a0): the module ID
        0x00030A63,  # beqz t1, 1f: the variable is undefined
        0x00000317,  # auipc t1, 0
        0,  # l[wd] t1, (the last word)(t1)
        0x000300E7,  # jalr t1
        0x0080006F,  # j 2f
        _add_immediate(_A0, _ZERO, 0),  # 1: li a0, 0
        0x40450533,  # 2: sub a0, a0, tp
    ]
    pc = 4 * (len(saved) + 4)
    code += [_load(load, size, register, at, _SP) for (_, load, size, register), at in places]
    code += [_add_immediate(_SP, _SP, frame), 0x00028067]  # jr t0
    end = -(-4 * len(code) // word) * word
    code[pc // 4 + 1] = _load(_LOAD, word, _T1, end - pc, _T1)
    return np.array(code, "<u4").tobytes().ljust(end + word, b"\0")


def build_tls_descriptors(graph: LinkGraph, float_size: int) -> None:
    """Create the TLS descriptors that edges request, and retarget the edges (post-prune pass).

    Args:
        graph: the graph.
        float_size: size in bytes of the floating-point registers that calls may change.
    """
    edges, word = graph.edge_table, graph.pointer_size
    rows = rows_where(edges.kind == K.R_RISCV_TLSDESC_HI20)
    if len(rows) == 0:
        return
    targets, number = np.unique(edges.target[rows], return_inverse=True)
    section = graph.obtain_section(TLS_INFO_SECTION, MemProt.READ)
    blocks, symbols = add_equal_blocks(graph, section, len(targets), bytes(2 * word), word, 0)
    pointer, function = GOT_PLT[8 * word].pointer, _add_resolver(graph, float_size).row
    edges.extend(len(targets), block=blocks, kind=int(pointer), target=function)
    request = int(K.REQUEST_TLS_INDEX_IN_GOT_AND_TRANSFORM_TO_POINTER)
    edges.extend(len(targets), block=blocks, offset=word, kind=request, target=targets)
    # Last, so that the descriptor is taken for one of the variable.
    edges.extend(len(targets), block=blocks, kind=KEEP_ALIVE, target=targets)
    edges.target[rows] = symbols[number]
    edges.kind[rows] = K.R_RISCV_PCREL_HI20


def _add_resolver(graph: LinkGraph, float_size: int) -> Symbol:
    word = graph.pointer_size
    content = resolver(word, float_size)
    section = graph.obtain_section(RESOLVER_SECTION, MemProt.READ | MemProt.EXEC)
    block = graph.create_content_block(section, content, 0, max(word, 4))
    block.add_edge(GOT_PLT[8 * word].pointer, len(content) - word, _get_address(graph), 0)
    return graph.add_anonymous_symbol(block, 0, len(content), is_callable=True)


def _get_address(graph: LinkGraph) -> Symbol:
    return (
        graph.find_defined_symbol_by_name(GET_ADDRESS)
        or graph.find_absolute_symbol_by_name(GET_ADDRESS)
        or graph.find_external_symbol_by_name(GET_ADDRESS)
        or graph.add_external_symbol(GET_ADDRESS)
    )
