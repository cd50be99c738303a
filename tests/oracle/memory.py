"""Contents of memory after a link, and targets of references through GOT entries and stubs."""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import NamedTuple

_JUMP = b"\xff\x25"
_ENDBR64 = b"\xf3\x0f\x1e\xfa"


class Ifunc(NamedTuple):
    """An address that the resolver of an ifunc returns at run time."""

    resolver: int


Target = int | Ifunc


class TLSBlock(NamedTuple):
    """A TLS block.

    Attributes:
        address: of the variables in the comparison; no thread has them there.
        size: in bytes.
        module: the module ID.
        tp_offset: its offset from the thread pointer, if it is in static TLS.
    """

    address: int
    size: int
    module: int
    tp_offset: int | None


class Memory:
    """Bytes by address, as they are when the program starts.

    Attributes:
        stubs: the address ranges of the stubs.
        resolvers: the resolver whose result is in a pointer, by the pointer's address.
        got: address of the GOT, or None if there is none.
        follow_stub: the architecture's function that returns the target of a stub.
        pointer_size: size of an address in bytes.
        tls: the TLS blocks.
        dtp_bias: what `__tls_get_addr` adds to an offset.
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._chunks: list[bytearray] = []
        self.stubs: list[range] = []
        self.resolvers: dict[int, int] = {}
        self.got: int | None = None
        self.pointer_size = 8
        self.tls: list[TLSBlock] = []
        self.dtp_bias = 0
        self.follow_stub: Callable[[Memory, int], Target] = follow_x86_64

    @classmethod
    def of(cls, pieces: Iterable[tuple[int, bytes]]) -> "Memory":
        """Memory with these contents at these addresses; adjacent pieces are joined."""
        memory = cls()
        for address, content in sorted(pieces):
            chunks, starts = memory._chunks, memory._starts
            if chunks and starts[-1] + len(chunks[-1]) == address:
                chunks[-1] += content
            elif content:
                starts.append(address)
                chunks.append(bytearray(content))
        return memory

    def _find(self, address: int, size: int) -> tuple[bytearray, int] | None:
        index = bisect_right(self._starts, address) - 1
        if index < 0:
            return None
        chunk, offset = self._chunks[index], address - self._starts[index]
        return (chunk, offset) if offset + size <= len(chunk) else None

    def read(self, address: int, size: int) -> bytes | None:
        """The bytes at an address; None if there are none."""
        found = self._find(address, size) if size else (bytearray(), 0)
        return None if found is None else bytes(found[0][found[1] : found[1] + size])

    def write(self, address: int, content: bytes) -> bool:
        """Replace bytes; returns false if there are none."""
        found = self._find(address, len(content))
        if found is not None:
            found[0][found[1] : found[1] + len(content)] = content
        return found is not None

    def integer(self, address: int, size: int, *, signed: bool = True) -> int:
        """The little-endian integer at an address.

        Raises:
            LookupError: there are no bytes at the address.
        """
        content = self.read(address, size)
        if content is None:
            raise LookupError(f"nothing at {address:#x}")
        return int.from_bytes(content, "little", signed=signed)

    def load(self, pointer: int) -> Target:
        """The target of a GOT entry, or of another pointer that the linker generates."""
        if pointer in self.resolvers:
            return Ifunc(self.resolvers[pointer])
        return self.follow(self.integer(pointer, self.pointer_size, signed=False))

    def follow(self, address: int) -> Target:
        """The target of a jump to an address, which may be a stub."""
        if not any(address in each for each in self.stubs):
            return address
        return self.follow_stub(self, address)

    def variable(self, tp_offset: int) -> int:
        """The address of the variable at an offset from the thread pointer.

        Raises:
            LookupError: there is none.
        """
        # The end of one block may be the start of the next.
        for end in (0, 1):
            for block in self.tls:
                start = block.tp_offset
                if start is not None and start <= tp_offset < start + block.size + end:
                    return block.address + tp_offset - start
        raise LookupError(f"no variable at tp + {tp_offset:#x}")

    def indexed_variable(self, index: int) -> int:
        """The address of the variable of a tls_index at an address.

        Raises:
            LookupError: there is none.
        """
        size = self.pointer_size
        module, offset = self.integer(index, size), self.integer(index + size, size)
        for block in self.tls:
            if block.module == module and 0 <= offset + self.dtp_bias <= block.size:
                return block.address + offset + self.dtp_bias
        raise LookupError(f"no variable at {offset:#x} of module {module}")


def follow_x86_64(memory: Memory, address: int) -> Target:
    """The target of the stub at an address."""
    start = address
    if memory.read(start, 4) == _ENDBR64:
        start += 4
    if memory.read(start, 2) != _JUMP:
        return address
    return memory.load(start + 6 + memory.integer(start + 2, 4))
