"""JITs for tests: each has an address space of its own, so that what is left behind is counted."""

import gc
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jitlink.executor import SelfExecutorProcessControl
from jitlink.lljit import LLJIT
from jitlink.memory.address_space import AddressSpace
from jitlink.memory.in_process import InProcessMemoryManager
from tests.toolchain import compile_c, run, zig_command


class CountedJIT(LLJIT):
    """An LLJIT that knows how much memory its links hold."""

    def __init__(self, *, process_symbols: bool = True) -> None:
        self.space = AddressSpace((64 << 20,), resident_size=0)
        executor = SelfExecutorProcessControl(InProcessMemoryManager(self.space))
        super().__init__(executor=executor, process_symbols=process_symbols)

    @property
    def used_size(self) -> int:
        """Bytes of memory that links hold."""
        return sum(each.used_size for each in self.space.reservations)


@contextmanager
def counted_jit(*, process_symbols: bool = True) -> Iterator[CountedJIT]:
    """A JIT that must have given back all memory once it is closed."""
    jit = CountedJIT(process_symbols=process_symbols)
    try:
        yield jit
    finally:
        jit.close()
        left = jit.used_size
        jit.space.close()
    assert left == 0


def collect_garbage() -> None:
    """Collect garbage, and wait until what libraries among it have held is released."""
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "jitlink close":
            thread.join()


def compiled(source: str, *flags: str, suffix: str = ".c") -> Path:
    """An object of position-independent code."""
    return compile_c(source, "zig", ("-O1", "-fPIC", *flags), suffix=suffix)


def archived(place: Path, *members: Path) -> Path:
    """A static archive of objects, which get names of their own in it."""
    named = []
    for number, member in enumerate(members):
        copy = place.parent / f"member{number}.o"
        copy.write_bytes(member.read_bytes())
        named.append(copy)
    run([*zig_command("ar"), "rcs", place, *named])
    return place


def shared_library(place: Path, source: str) -> Path:
    """Compile C to a shared library."""
    command = [*zig_command("cc"), "-shared", "-target", "x86_64-linux-gnu"]
    run([*command, compiled(source), "-o", place])
    return place


def causes(error: BaseException) -> Sequence[BaseException]:
    """An error and what it was caused by, in turn."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    return chain
