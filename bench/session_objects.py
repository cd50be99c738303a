"""The cost of a session with real objects: ``python -m bench.session_objects``.

Objects of one function, which calls two, refer to one another in a chain, in one cycle and at
random. All are added, and the first is looked up, which links the objects that it reaches. Prints
the times per object, linked in two batches and one by one, the time of a link of one such object
without a session, and the memory of all objects, of the half that remains after the removal of
every other one, and after the session.
"""

from __future__ import annotations

import random
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

from bench.renamed import name, renamed, source
from jitlink.executor import SelfExecutorProcessControl
from jitlink.lljit import LLJIT
from jitlink.memory import InProcessMemoryManager
from jitlink.memory.address_space import AddressSpace
from jitlink.orc import ObjectLinkingLayer

COUNTS = (500, 1000, 2000, 4000)


@cache
def _original() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        code, target = Path(folder, "f.c"), Path(folder, "f.o")
        code.write_text(source(callees=2))
        subprocess.run(["clang-22", "-O1", "-fPIC", "-c", code, "-o", target], check=True)
        return target.read_bytes()


def _calls(topology: str, count: int) -> list[tuple[int, int]]:
    if topology == "chain":
        return [(min(number + 1, count - 1),) * 2 for number in range(count)]
    if topology == "cycle":
        return [((number + 1) % count,) * 2 for number in range(count)]
    generator = random.Random(count)
    # The first of the two makes all functions reachable from function 0.
    return [((number + 1) % count, generator.randrange(count)) for number in range(count)]


def _size(space: AddressSpace) -> float:
    """KiB that links hold."""
    return sum(each.used_size for each in space.reservations) / 1024


def measure(topology: str, count: int, *, batched: bool) -> None:
    """Print one line of the table."""
    objects = [renamed(_original(), n, calls) for n, calls in enumerate(_calls(topology, count))]
    space = AddressSpace((256 << 20,), resident_size=0)
    manager = InProcessMemoryManager(space)
    with LLJIT(executor=SelfExecutorProcessControl(manager)) as jit:
        assert isinstance(jit.layer, ObjectLinkingLayer)
        jit.layer.batch_objects = batched
        halves = [jit.create_resource_tracker() for _ in range(2 if batched else count)]
        start = time.perf_counter()
        for number, data in enumerate(objects):
            jit.add_object(data, halves[number % len(halves)])
        added = time.perf_counter()
        jit.lookup(name(0))
        linked = time.perf_counter()
        sizes = [_size(space)]
        for tracker in halves[::2]:
            tracker.remove()
        sizes.append(_size(space))
        removed = time.perf_counter()
    sizes.append(_size(space))
    space.close()
    microseconds = [
        1e6 * each / count for each in (added - start, linked - added, 2 * (removed - linked))
    ]
    print(
        f"{topology:8} {'two batches' if batched else 'one by one':11} {count:6} "
        + "".join(f"{each:9.1f}" for each in microseconds)
        + "   "
        + "".join(f"{each:9.0f}" for each in sizes)
    )


def alone() -> float:
    """Microseconds to read and link one object without a session."""
    from bench.architectures import measure as measure_link  # noqa: PLC0415 - the same as there

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "f.o")
        path.write_bytes(renamed(_original(), 0, (0, 0)))
        return 1e6 * measure_link(path)[0]


def main() -> None:
    """Print the table."""
    print(f"one object alone: {alone():.0f} µs")
    print("                                    µs per object            KiB in use of")
    print("topology linked      objects      add   look up   remove        all     half     none")
    for batched in (True, False):
        for topology in ("chain", "cycle", "random"):
            for count in COUNTS:
                measure(topology, count, batched=batched)


if __name__ == "__main__":
    main()
