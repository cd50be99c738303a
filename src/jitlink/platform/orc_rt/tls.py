"""Thread-local variables as LLVM's ORC runtime keeps them, on x86-64.

Code of the general dynamic model calls ``__tls_get_addr`` with the address of an entry. The
runtime's function takes its place and expects, in an entry in `$__TLSINFO`, a key of pthreads and
the address of the variable's initial image. The first time that a thread asks for a variable of an
image, it gets a copy of all of it.

Quirks: the runtime forgets no image, and no other one may ever come to the same addresses. So
images are not part of the link's own memory, but stay for as long as the runtime does. It relies
on an aligned stack, which gcc's code does not give it, so a function is between. Its copies are
aligned as memory of malloc is.

LLVM differs: there each object has a key of its own, so that objects do not see each other's
variables, and the runtime's function is called as it is.
"""

from __future__ import annotations

import numpy as np

from jitlink.arch.x86_64 import X86_64EdgeKind as K
from jitlink.errors import TLSError
from jitlink.fixups import fail
from jitlink.graph import BlockFlags, LinkGraph, MemLifetime, MemProt, Scope, Symbol
from jitlink.graph.columns import BoolArray, Int64Array, rows_where
from jitlink.graph.contents import ZERO_FILL
from jitlink.graph.edges import INVALID
from jitlink.memory.layout import copy_contents, place
from jitlink.passes.got_plt import TLS_INFO_SECTION, add_equal_blocks
from jitlink.passes.tls import TLSEdgeKinds

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
"""What the runtime aligns the copies of threads to, in bytes."""
MOST_ALIGNMENT = 32
"""What gcc gives to large arrays, though only AVX code relies on it."""
_ONLY_GENERAL_DYNAMIC = (
    "accesses a thread-local variable in a way that LLVM's ORC runtime has nothing for; compile "
    "with -fPIC -ftls-model=global-dynamic"
)


def _images(graph: LinkGraph) -> Int64Array:
    """Rows (int64) of the blocks of initial images."""
    kept = int(BlockFlags.THREAD_LOCAL)
    return rows_where(graph.block_table.flags & (kept | int(BlockFlags.REMOVED)) == kept)


def _accesses(graph: LinkGraph, kinds: TLSEdgeKinds) -> Int64Array:
    """Rows (int64) of the edges that are about thread-local variables."""
    return rows_where(kinds.mask[graph.edge_table.kind])


def uses_tls(graph: LinkGraph, kinds: TLSEdgeKinds) -> bool:
    """Whether a graph has to do with thread-local variables."""
    return len(_images(graph)) > 0 or len(_accesses(graph, kinds)) > 0


def use_runtime_tls(graph: LinkGraph, kinds: TLSEdgeKinds, key: int) -> None:
    """Turn accesses into such as the runtime serves (for the first post-prune pass).

    Args:
        graph: the graph.
        kinds: how the architecture's code accesses thread-local variables.
        key: the session's key of pthreads.

    Raises:
        FixupError: there is access of another model than general dynamic.
    """
    edges = graph.edge_table
    rows = _accesses(graph, kinds)
    loaded = _is_loaded(graph, rows)
    # Debug information can say nothing about where a thread has its copy.
    edges.kind[rows[~loaded]] = INVALID
    rows = rows[loaded]
    others = rows[edges.kind[rows] != int(_ENTRY)]
    if len(others):
        fail(graph, others, _ONLY_GENERAL_DYNAMIC)
    if len(rows):
        _create_entries(graph, rows, key)
    _redirect(graph)


def _is_loaded(graph: LinkGraph, rows: Int64Array) -> BoolArray:
    lifetimes = graph.section_lifetimes()[graph.block_table.section[graph.edge_table.block[rows]]]
    result: BoolArray = lifetimes != int(MemLifetime.NO_ALLOC)
    return result


def _create_entries(graph: LinkGraph, rows: Int64Array, key: int) -> None:
    edges = graph.edge_table
    targets, number = np.unique(edges.target[rows], return_inverse=True)
    section = graph.obtain_section(TLS_INFO_SECTION, MemProt.READ)
    content = key.to_bytes(_WORD, "little") + bytes(_WORD)
    blocks, entries = add_equal_blocks(graph, section, len(targets), content, _WORD, 0)
    edges.target[rows] = entries[number]
    edges.kind[rows] = int(K.DELTA32)
    edges.extend(len(targets), block=blocks, offset=_WORD, kind=int(K.POINTER64), target=targets)


def _redirect(graph: LinkGraph) -> None:
    """Call the runtime's function in place of the C library's."""
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
    """The initial image of a graph's thread-local variables.

    Args:
        graph: the graph, before its passes.

    Attributes:
        size: in bytes; 0 if the graph has no such variables.
        alignment: in bytes.
        address: where it is, once that is known.

    Raises:
        TLSError: a variable is to be aligned more than the runtime's copies are.
    """

    def __init__(self, graph: LinkGraph) -> None:
        table, rows = graph.block_table, _images(graph)
        sizes, alignments = table.size[rows], table.alignment[rows]
        group = np.zeros(len(rows), np.int64)
        self._rows = rows
        self._offsets = place(group, sizes, alignments, table.alignment_offset[rows])
        self.size = int((self._offsets + sizes).max(initial=0))
        self.alignment = int(alignments.max(initial=1))
        self.address = 0
        if self.alignment > MOST_ALIGNMENT:
            raise TLSError(
                f"in graph {graph.name}, a thread-local variable is to be aligned to "
                f"{self.alignment} bytes; LLVM's ORC runtime aligns to {_COPY_ALIGNMENT}"
            )

    def _present(self, graph: LinkGraph) -> BoolArray:
        """Which of the blocks have not been removed."""
        flags = graph.block_table.flags[self._rows]
        result: BoolArray = flags & int(BlockFlags.REMOVED) == 0
        return result

    def reserve(self, graph: LinkGraph, name: str) -> Symbol:
        """Fill another graph with the memory that the image is to be in.

        Args:
            graph: an empty graph.
            name: of the symbol there.
        """
        section = graph.create_section(".tdata", MemProt.READ | MemProt.WRITE)
        block = graph.create_zero_fill_block(section, self.size, 0, self.alignment)
        return graph.add_defined_symbol(block, 0, name, self.size, scope=Scope.HIDDEN)

    def take_out(self, graph: LinkGraph) -> None:
        """Let the graph have no memory for its variables (a post-prune pass)."""
        rows = self._rows[self._present(graph)]
        if len(rows):
            prot, lifetime = MemProt.READ | MemProt.WRITE, MemLifetime.NO_ALLOC
            section = graph.obtain_section(_IMAGE_SECTION, prot, lifetime)
            graph.block_table.section[rows] = section.ordinal

    def locate(self, graph: LinkGraph) -> None:
        """Give the variables the addresses of their images (a post-allocation pass)."""
        places = self._offsets.view(np.uint64) + np.uint64(self.address)
        graph.block_table.address[self._rows] = places

    def content(self, graph: LinkGraph) -> bytes:
        """The image, once fixups have been applied."""
        table, image = graph.block_table, bytearray(self.size)
        present = self._present(graph) & (table.content[self._rows] != ZERO_FILL)
        rows = self._rows[present]
        target = memoryview(image)
        copy_contents(graph, table.content[rows], table.size[rows], target, self._offsets[present])
        return bytes(image)
