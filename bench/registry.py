"""All peers, in the order of their columns."""

from __future__ import annotations

from bench.commands import GNULD, LLD, LLVMJITLink, Mold
from bench.floor import Floor
from bench.jitlink_peer import JITLink
from bench.libllvm import LibLLVM
from bench.llvmlite_peer import LLVMLite
from bench.peers import Peer

_CLASSES: tuple[type[Peer], ...] = (
    JITLink, LibLLVM, LLVMJITLink, LLVMLite, GNULD, LLD, Mold, Floor,
)  # fmt: skip
PEERS = {peer.name: peer for peer in _CLASSES}
