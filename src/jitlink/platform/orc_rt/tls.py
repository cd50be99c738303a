"""TLS of LLVM's ORC runtime, on x86-64.

Code of the general dynamic model calls ``__tls_get_addr`` with the address of a GOT entry. The
runtime's function replaces it and expects, in a GOT entry in `$__TLSINFO`, a pthread key and the
address of the variable in its initialisation image. When a thread first accesses a variable of an
image, it gets a copy of the whole image.

Quirks: the runtime never forgets an image, and no other image may ever get the same addresses. So
images are not part of the link's own memory, but stay for as long as the runtime does. Its function
relies on an aligned stack, which gcc's code does not provide, so a function that aligns the stack
calls it. Its copies have the alignment of malloc.

LLVM differs: there each object has its own key, so that objects do not see each other's
variables, and the runtime's function is called directly.
"""

from __future__ import annotations

import numpy as np

from jitlink.arch.x86_64 import X86_64EdgeKind as K
from jitlink.errors import TLSError
from jitlink.fixup_errors import fail
from jitlink.graph import BlockFlags, LinkGraph, MemLifetime, MemProt, Scope, Symbol
from jitlink.graph.columns import BoolArray, Int64Array, rows_where
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.edges import INVALID
from jitlink.memory.copying import copy_contents
from jitlink.memory.layout import place
from jitlink.passes.got_plt import TLS_INFO_SECTION, add_equal_blocks
from jitlink.targets.elf_x86_64 import TLS_EDGE_KINDS

GET_ADDRESS = "__tls_get_addr"
RUNTIME_GET_ADDRESS = "___orc_rt_elfnix_tls_get_addr"
ALIGNED_GET_ADDRESS = "__jitlink_orc_tls_get_addr"
_CALL_ALIGNED = bytes.fromhex(
    "55 48 89 e5"  # push %rbp; mov %rsp, %rbp
    "48 83 e4 f0"  # and $-16, %rsp
    "e8 00 00 00 00"  # call RUNTIME_GET_ADDRESS
    "c9 c3"  # leave; ret
)
_CALL_OPERAND = 9
_ENTRY = K.REQUEST_TLS_DESC_IN_GOT_AND_TRANSFORM_TO_DELTA32
_IMAGE_SECTION = "$__TLSIMAGE"
_WORD = 8
_COPY_ALIGNMENT = 16
"""Alignment of the threads' copies, in bytes."""
MOST_ALIGNMENT = 32
"""Alignment in bytes that gcc gives to large arrays, though only AVX code relies on it."""
_ONLY_GENERAL_DYNAMIC = (
    "is of a TLS model that LLVM's ORC runtime does not support; compile with -fPIC "
    "-ftls-model=global-dynamic"
)


def _image_blocks(graph: LinkGraph) -> Int64Array:
    """Rows (int64) of the blocks of the initialisation image."""
    kept = int(BlockFlags.THREAD_LOCAL)
    return rows_where(graph.block_table.flags & (kept | int(BlockFlags.REMOVED)) == kept)


def _accesses(graph: LinkGraph) -> Int64Array:
    """Rows (int64) of the edges that access thread-local variables."""
    return rows_where(TLS_EDGE_KINDS.mask[graph.edge_table.kind])


def uses_tls(graph: LinkGraph) -> bool:
    """Whether a graph is of this architecture, and has or accesses thread-local variables."""
    return graph.edge_kinds is K and (len(_image_blocks(graph)) > 0 or len(_accesses(graph)) > 0)


def use_runtime_tls(graph: LinkGraph, key: int) -> None:
    """Make accesses use the runtime (the first post-prune pass).

    Args:
        graph: the graph.
        key: the session's pthread key.

    Raises:
        FixupError: an access is of another model than general dynamic.
    """
    edges = graph.edge_table
    rows = _accesses(graph)
    loaded = _is_loaded(graph, rows)
    # Debug information cannot describe where a thread has its copy.
    edges.kind[rows[~loaded]] = INVALID
    rows = rows[loaded]
    others = rows[edges.kind[rows] != int(_ENTRY)]
    if len(others):
        fail(graph, others, _ONLY_GENERAL_DYNAMIC)
    if len(rows):
        _create_got_entries(graph, rows, key)
    _redirect(graph)


def _is_loaded(graph: LinkGraph, rows: Int64Array) -> BoolArray:
    lifetimes = graph.section_lifetimes()[graph.block_table.section[graph.edge_table.block[rows]]]
    result: BoolArray = lifetimes != int(MemLifetime.NO_ALLOC)
    return result


def _create_got_entries(graph: LinkGraph, rows: Int64Array, key: int) -> None:
    edges = graph.edge_table
    targets, number = np.unique(edges.target[rows], return_inverse=True)
    section = graph.obtain_section(TLS_INFO_SECTION, MemProt.READ)
    content = key.to_bytes(_WORD, "little") + bytes(_WORD)
    blocks, entries = add_equal_blocks(graph, section, len(targets), content, _WORD, 0)
    edges.target[rows] = entries[number]
    edges.kind[rows] = int(K.DELTA32)
    edges.extend(len(targets), block=blocks, offset=_WORD, kind=int(K.POINTER64), target=targets)


def _redirect(graph: LinkGraph) -> None:
    """Call the runtime's function instead of the C library's."""
    symbol = graph.find_external_symbol_by_name(GET_ADDRESS)
    if symbol is not None:
        graph.rename_symbol(symbol, ALIGNED_GET_ADDRESS)


def aligned_call(graph: LinkGraph) -> LinkGraph:
    """Fill a graph with the function that calls the runtime's with an aligned stack."""
    section = graph.create_section(".text", MemProt.READ | MemProt.EXEC)
    block = graph.create_content_block(section, _CALL_ALIGNED, 0, 16)
    size = len(_CALL_ALIGNED)
    graph.add_defined_symbol(block, 0, ALIGNED_GET_ADDRESS, size, is_callable=True)
    function = graph.add_external_symbol(RUNTIME_GET_ADDRESS)
    graph.add_edge(block, K.BRANCH_PCREL32, _CALL_OPERAND, function)
    return graph


class InitializationImage:
    """The initialisation image of a graph's thread-local variables.

    Args:
        graph: the graph, before its passes.

    Attributes:
        size: in bytes; 0 if the graph has no such variables.
        alignment: in bytes.
        address: its address, once it is allocated.

    Raises:
        TLSError: a variable's alignment is larger than that of the runtime's copies.
    """

    def __init__(self, graph: LinkGraph) -> None:
        table, rows = graph.block_table, _image_blocks(graph)
        sizes, alignments = table.size[rows], table.alignment[rows]
        group = np.zeros(len(rows), np.int64)
        self._rows = rows
        self._offsets = place(group, sizes, alignments, table.alignment_offset[rows])
        self.size = int((self._offsets + sizes).max(initial=0))
        self.alignment = int(alignments.max(initial=1))
        self.address = 0
        if self.alignment > MOST_ALIGNMENT:
            raise TLSError(
                f"in graph {graph.name}, a thread-local variable is aligned to "
                f"{self.alignment} bytes; LLVM's ORC runtime aligns to {_COPY_ALIGNMENT}"
            )

    def _present(self, graph: LinkGraph) -> BoolArray:
        """Which of the blocks have not been removed."""
        flags = graph.block_table.flags[self._rows]
        result: BoolArray = flags & int(BlockFlags.REMOVED) == 0
        return result

    def reserve(self, graph: LinkGraph, name: str) -> Symbol:
        """Add a zero-fill block for the image to another graph.

        Args:
            graph: an empty graph.
            name: name of the block's symbol.
        """
        section = graph.create_section(".tdata", MemProt.READ | MemProt.WRITE)
        block = graph.create_zero_fill_block(section, self.size, 0, self.alignment)
        return graph.add_defined_symbol(block, 0, name, self.size, scope=Scope.HIDDEN)

    def take_out(self, graph: LinkGraph) -> None:
        """Make the graph's own blocks of the image NO_ALLOC (a post-prune pass)."""
        rows = self._rows[self._present(graph)]
        if len(rows):
            prot, lifetime = MemProt.READ | MemProt.WRITE, MemLifetime.NO_ALLOC
            section = graph.obtain_section(_IMAGE_SECTION, prot, lifetime)
            graph.block_table.section[rows] = section.ordinal

    def locate(self, graph: LinkGraph) -> None:
        """Give the variables their addresses in the image (a post-allocation pass)."""
        addresses = self._offsets.view(np.uint64) + np.uint64(self.address)
        graph.block_table.address[self._rows] = addresses

    def content(self, graph: LinkGraph) -> bytes:
        """The bytes of the image, after fixups."""
        table, image = graph.block_table, bytearray(self.size)
        present = self._present(graph) & (table.content[self._rows] != ZERO_FILL)
        rows = self._rows[present]
        target = memoryview(image)
        copy_contents(graph, table.content[rows], table.size[rows], target, self._offsets[present])
        return bytes(image)
