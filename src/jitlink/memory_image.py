"""Memory images: code that is placed at the addresses of a machine that is not there.

::

    board = MemoryImage("riscv32", [
        MemoryRegion("flash", 0x2000_0000, 512 << 10, "rx"),
        MemoryRegion("ram", 0x8000_0000, 16 << 10, "rw", load_region="flash"),
    ])
    with jitlink.load("start.o", "blink.o", "libdriver.a", executor=board):
        board.write("blink.hex", entry="_start")

A `MemoryImage` is an executor without a processor: `jitlink.load` and sessions link for it as for
any other, and nothing runs. What they have placed is written as Intel HEX, S-records, raw bytes or
an ELF executable, for debug probes, programmers and emulators.

The package ``bincopy`` writes Intel HEX and S-records (``pip install 'jitlink[firmware]'``).
"""

from __future__ import annotations

import operator
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NoReturn

from jitlink.errors import ExecutorError, UndefinedSymbolError
from jitlink.executor.code_map import CodeMap
from jitlink.executor.control import ExecutorProcessControl, PlacedArguments
from jitlink.memory.images import ImageSymbols
from jitlink.memory.regions import MemoryRegion, PlacedSegment, RegionMemoryManager
from jitlink.memory.tls import FIRST_ADDRESS
from jitlink.sps import WrapperFunctionResult
from jitlink.targets.registry import target_of_triple

if TYPE_CHECKING:
    import bincopy

ImageFormat = Literal["ihex", "srec", "raw", "elf"]
Placed = Mapping[str, Sequence[PlacedSegment]]
"""The segments of each region, in order of address, by the region's name."""
SymbolValue = int | Callable[[Placed], int]
"""An address, or what computes it from what has been placed."""

_FORMATS: Mapping[str, ImageFormat] = {
    ".hex": "ihex", ".ihex": "ihex", ".ihx": "ihex",
    ".srec": "srec", ".s19": "srec", ".s28": "srec", ".s37": "srec", ".mot": "srec",
    ".bin": "raw", ".raw": "raw",
    ".elf": "elf", ".axf": "elf", ".out": "elf",
}  # fmt: skip
"""The formats of files, by the ends of their names."""
_LARGEST_RAW = 1 << 28
"""The most bytes of raw contents that are written without a region: gaps are filled."""


class MemoryImage(ExecutorProcessControl):
    """An executor that is only memory.

    Args:
        architecture: the architecture to link for, as in triples: ``riscv32``, ``aarch64``.
        regions: the machine's memory; by default one region for everything.
        address: where that one begins.
        symbols: addresses of what neither the linked objects nor other definitions define, by name:
            numbers, or functions that are called when code that refers to the name has been placed,
            with lists of the segments of all regions by name:
            ``{"_sidata": lambda placed: placed["ram"][0].load_address}``

    Raises:
        UnsupportedObjectError: code for the architecture is not linked.
        ValueError: the regions cannot be those of one machine, or of this one, or there are both
            regions and an address.
    """

    page_size = 1

    def __init__(
        self,
        architecture: str,
        regions: Iterable[MemoryRegion] | None = None,
        *,
        address: int | None = None,
        symbols: Mapping[str, SymbolValue] | None = None,
    ) -> None:
        self._target = target_of_triple(architecture)
        self.triple = f"{architecture.partition('-')[0]}-unknown-none"
        if regions is None:
            start = 0 if address is None else address
            # Above that are what stands for thread-local variables, and operating systems.
            end = min(1 << 8 * self._target.pointer_size, FIRST_ADDRESS)
            regions = [MemoryRegion("memory", start, max(end - start, 0))]
        elif address is not None:
            raise ValueError("regions have addresses of their own")
        self._memory = RegionMemoryManager(regions)
        self._limit = 1 << 8 * self._target.pointer_size
        for region in self._memory.regions:
            if region.end > self._limit:
                raise ValueError(
                    f"region {region.name} ends at {region.end:#x}, above the addresses of "
                    f"{self._target.pointer_size * 8} bits"
                )
        self.memory_manager = self._memory
        self.code_map = CodeMap()
        self._given = dict(symbols or {})

    # What has been placed

    @property
    def segments(self) -> list[PlacedSegment]:
        """All that has been placed, in order of address."""
        return self._memory.segments()

    def symbols(self) -> dict[str, int]:
        """Addresses of all named symbols that have been placed, local ones too."""
        symbols, found = self._symbols(), dict[str, int]()
        addresses = symbols.addresses.tolist()
        for name, address, is_local in zip(
            symbols.names, addresses, symbols.is_local.tolist(), strict=True
        ):
            if not is_local or name not in found:
                found[name] = address
        return found

    def _symbols(self) -> ImageSymbols:
        assert self.code_map is not None
        return ImageSymbols.joined([graph.symbols() for graph in self.code_map.graphs()])

    def _region(self, name: str) -> MemoryRegion:
        for region in self._memory.regions:
            if region.name == name:
                return region
        known = ", ".join(region.name for region in self._memory.regions)
        raise ValueError(f"there is no region {name}; the regions are {known}")

    def _entry(self, entry: str | int | None) -> int:
        if entry is None:
            return 0
        if isinstance(entry, int):
            return self._address(entry, "the entry point")
        address = self.symbols().get(entry)
        if address is None:
            raise UndefinedSymbolError([entry])
        return address

    def _address(self, value: int, what: str) -> int:
        if not 0 <= value < self._limit:
            raise ValueError(f"{what} at {value:#x} is outside the addresses of the machine")
        return value

    # Files

    def ihex(self, entry: str | int | None = None) -> str:
        """The contents in the format Intel HEX, at their load addresses.

        Args:
            entry: the entry point, as a symbol or an address.

        Raises:
            ExecutorError: the package that writes it is missing, or a load address is above 32
                bits, which the format cannot have.
            UndefinedSymbolError: there is no such symbol.
        """
        text: str = self._records(entry).as_ihex()
        return text

    def srec(self, entry: str | int | None = None) -> str:
        """The contents as Motorola S-records with addresses of 32 bits; see `ihex`."""
        text: str = self._records(entry).as_srec(address_length_bits=32)
        return text

    def _records(self, entry: str | int | None) -> bincopy.BinFile:
        try:
            import bincopy  # noqa: PLC0415 - an optional package
        except ImportError as error:
            message = "Intel HEX and S-records need a package: pip install 'jitlink[firmware]'"
            raise ExecutorError(message) from error
        records = bincopy.BinFile()
        for segment in self.segments:
            end = segment.load_address + len(segment.content)
            if end > 1 << 32:
                raise ExecutorError(
                    f"contents of region {segment.region.name} end at {end:#x}, and the format has "
                    "addresses of 32 bits; write an ELF executable"
                )
            if segment.content:
                records.add_binary(bytes(segment.content), segment.load_address)
        records.execution_start_address = None if entry is None else self._entry(entry)
        return records

    def raw(self, region: str | None = None, fill: int = 0xFF) -> bytes:
        """The contents at successive load addresses, from the first byte to the last one.

        Args:
            region: name of the region whose contents are wanted; by default those of all regions.
                It then begins with the region's first byte.
            fill: what is between contents; erased flash is 0xFF.

        Raises:
            ValueError: there is no region of that name.
            ExecutorError: the contents of all regions are too far from each other.
        """
        start, end = 0, 1 << 64
        if region is not None:
            chosen = self._region(region)
            start, end = chosen.start, chosen.end
        parts = sorted(
            (each.load_address, each.content)
            for each in self.segments
            if each.content and start <= each.load_address < end
        )
        if not parts:
            return b""
        first = start if region is not None else parts[0][0]
        last = max(address + len(content) for address, content in parts)
        if region is None and last - first > _LARGEST_RAW:
            raise ExecutorError(
                f"contents are between {first:#x} and {last:#x}, which are too many bytes for one "
                "file; write each region to its own"
            )
        result = bytearray([fill]) * (last - first)
        for address, content in parts:
            result[address - first : address - first + len(content)] = content
        return bytes(result)

    def elf(self, entry: str | int | None = None) -> bytes:
        """An ELF executable of the segments, with a symbol table.

        Args:
            entry: the entry point, as a symbol or an address.

        Raises:
            UndefinedSymbolError: there is no such symbol.
            ValueError: the entry point is no address of the machine, or there are too many segments
                for one file.
        """
        assert self.code_map is not None
        flags = [flag for graph in self.code_map.graphs() for flag in graph.origin_flags]
        segments, symbols = self.segments, self._symbols()
        return self._target.write_executable(segments, symbols, self._entry(entry), flags)

    def write(
        self,
        path: str | os.PathLike[str],
        format: ImageFormat | None = None,  # noqa: A002 - the field's word
        *,
        entry: str | int | None = None,
        region: str | None = None,
    ) -> None:
        """Write what has been placed to a file.

        Args:
            path: the file, which is overwritten.
            format: its format; by default as its name ends, which is ``.hex``, ``.srec``, ``.bin``,
                ``.elf`` or another usual end.
            entry: the entry point, as a symbol or an address; not of raw files.
            region: of raw files, the region whose contents are written.

        Raises:
            ValueError: the end of the name stands for no format, there is no such region, or as
                for `elf`.
            ExecutorError: it cannot be written in that format.
            UndefinedSymbolError: there is no such symbol.
            OSError: the file cannot be written.
        """
        name = os.fspath(path)
        end = os.path.splitext(name)[1].lower()  # noqa: PTH122 - pathlib is slow to import
        chosen = format or _FORMATS.get(end)
        if chosen == "raw":
            content = self.raw(region)
        elif chosen == "elf":
            content = self.elf(entry)
        elif chosen == "ihex":
            content = self.ihex(entry).encode()
        elif chosen == "srec":
            content = self.srec(entry).encode()
        else:
            known = ", ".join(_FORMATS)
            raise ValueError(f"{name!r} ends with none of {known}; name a format")
        with open(name, "wb") as file:  # noqa: PTH123
            file.write(content)

    # What sessions ask of an executor

    async def load_dylib(self, path: str | os.PathLike[str]) -> int:
        """Fail: there is no system that loads libraries."""
        raise ExecutorError(
            f"cannot load {os.fspath(path)}: a memory image has no shared libraries"
        )

    async def lookup_symbols(
        self,
        names: Sequence[str],
        dylib: int | None = None,  # noqa: ARG002 - there is none
    ) -> list[int | None]:
        """Addresses of the symbols that the image was given."""
        return [self._value(name) for name in names]

    def _value(self, name: str) -> int | None:
        value = self._given.get(name)
        if value is None:
            return None
        if not callable(value):
            return self._address(value, name)
        placed: dict[str, list[PlacedSegment]] = {r.name: [] for r in self._memory.regions}
        for segment in self._memory.segments(in_flight=True):
            placed[segment.region.name].append(segment)
        return self._address(operator.index(value(placed)), name)

    def _place_of(self, address: int, size: int) -> tuple[PlacedSegment, int]:
        """The segment that a range is in, and the offset there."""
        segments = self.segments
        index = bisect_right([each.address for each in segments], address) - 1
        if index >= 0 and address + size <= segments[index].address + segments[index].size:
            return segments[index], address - segments[index].address
        raise ExecutorError(f"nothing has been placed at {address:#x}, {size:#x} bytes")

    async def read_memory(self, address: int, size: int, generation: int | None = None) -> bytes:  # noqa: ARG002
        """The bytes at an address."""
        segment, offset = self._place_of(address, size)
        return bytes(segment.content[offset : offset + size]).ljust(size, b"\0")

    async def write_memory(
        self,
        address: int,
        content: bytes | bytearray | memoryview,
        generation: int | None = None,  # noqa: ARG002
    ) -> None:
        """Change contents.

        Raises:
            ExecutorError: nothing has been placed there, or only zeros, which are not stored.
        """
        segment, offset = self._place_of(address, len(content))
        if offset + len(content) > len(segment.content):
            raise ExecutorError(f"there are only zeros at {address:#x}, which are not stored")
        segment.content[offset : offset + len(content)] = content

    async def write_words(self, words: Sequence[tuple[int, int]]) -> None:
        """Change words of the size of a pointer."""
        size, order = self._target.pointer_size, self._target.byte_order
        for address, word in words:
            await self.write_memory(address, word.to_bytes(size, order))

    async def place_arguments(self, argv: Sequence[str]) -> PlacedArguments:  # noqa: ARG002
        """Fail: nothing runs."""
        self._refuse()

    async def begin_program(self, argv: Sequence[str], name: str | None = None) -> PlacedArguments:  # noqa: ARG002
        """Fail: nothing runs."""
        self._refuse()

    async def call_main(self, address: int, arguments: PlacedArguments) -> int:  # noqa: ARG002
        """Fail: nothing runs."""
        self._refuse()

    async def end_program(self) -> None:
        """Fail: nothing runs."""
        self._refuse()

    async def run_as_void_function(self, address: int) -> int:  # noqa: ARG002
        """Fail: nothing runs."""
        self._refuse()

    async def run_as_int_function(self, address: int, argument: int) -> int:  # noqa: ARG002
        """Fail: nothing runs."""
        self._refuse()

    async def call_wrapper(
        self,
        address: int,  # noqa: ARG002
        arguments: bytes,  # noqa: ARG002
        generation: int | None = None,  # noqa: ARG002
        *,
        timeout: float | None = None,  # noqa: ARG002 - part of the interface
    ) -> WrapperFunctionResult:
        """Fail: nothing runs."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ExecutorError(f"a memory image of {self.triple} runs no code")
