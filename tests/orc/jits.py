"""JITs for tests: each has its own address space, so that memory that is not freed is counted."""

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
    """An LLJIT that counts the memory of its links."""

    def __init__(self, *, process_symbols: bool = True) -> None:
        self.space = AddressSpace((64 << 20,), resident_size=0)
        executor = SelfExecutorProcessControl(InProcessMemoryManager(self.space))
        super().__init__(executor=executor, process_symbols=process_symbols)

    @property
    def used_size(self) -> int:
        """Bytes of memory that links use."""
        return sum(reservation.used_size for reservation in self.space.reservations)


@contextmanager
def counted_jit(*, process_symbols: bool = True) -> Iterator[CountedJIT]:
    """A JIT that must have freed all memory when it is closed."""
    jit = CountedJIT(process_symbols=process_symbols)
    try:
        yield jit
    finally:
        jit.close()
        left = jit.used_size
        jit.space.close()
    assert left == 0


def collect_garbage() -> None:
    """Collect garbage, and wait until the code of collected libraries is released."""
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "jitlink close":
            thread.join()


def compiled(source: str, *flags: str, suffix: str = ".c") -> Path:
    """An object of position-independent code."""
    return compile_c(source, "zig", ("-O1", "-fPIC", *flags), suffix=suffix)


def archived(path: Path, *members: Path) -> Path:
    """A static archive of objects, with unique member names."""
    named = []
    for number, member in enumerate(members):
        copy = path.parent / f"member{number}.o"
        copy.write_bytes(member.read_bytes())
        named.append(copy)
    run([*zig_command("ar"), "rcs", path, *named])
    return path


def shared_library(path: Path, source: str) -> Path:
    """Compile C to a shared library."""
    command = [*zig_command("cc"), "-shared"]
    run([*command, compiled(source), "-o", path])
    return path


def causes(error: BaseException) -> Sequence[BaseException]:
    """An error and its chain of causes."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    return chain
