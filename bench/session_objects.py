"""What a session costs with real objects: ``python -m bench.session_objects``.

Objects of one function each call one another in a chain, in one circle and at random. All are
added, and the first is called, which links what it reaches. Printed are the times for each object,
once linked as one batch and once each by itself, beside what linking one such object alone costs,
and the memory of all of them, of the half that is left after every other one was removed, and of
none.
"""

from __future__ import annotations

import random
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

from jitlink.executor import SelfExecutorProcessControl
from jitlink.lljit import LLJIT
from jitlink.memory import InProcessMemoryManager
from jitlink.memory.address_space import AddressSpace
from jitlink.orc import ObjectLinkingLayer

COUNTS = (500, 1000, 2000, 4000)
_SOURCE = """
int g00000(int), h00000(int);
int f00000(int x) { return x <= 0 ? 0 : x & 1 ? g00000(x - 1) : h00000(x - 1); }
"""


@cache
def _template() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "f.c"), Path(folder, "f.o")
        source.write_text(_SOURCE)
        subprocess.run(["clang-22", "-O1", "-fPIC", "-c", source, "-o", target], check=True)
        return target.read_bytes()


def _object(number: int, first: int, second: int) -> bytes:
    """The object that defines function `number`, which calls two others."""
    data = _template()
    for old, new in (("f00000", number), ("g00000", first), ("h00000", second)):
        # The names are as long, so everything stays where it is.
        data = data.replace(old.encode(), b"F%05d" % new)
    return data


def _calls(shape: str, count: int) -> list[tuple[int, int]]:
    if shape == "chain":
        return [(min(number + 1, count - 1),) * 2 for number in range(count)]
    if shape == "circle":
        return [((number + 1) % count,) * 2 for number in range(count)]
    generator = random.Random(count)
    # The first of the two keeps everything in reach of function 0.
    return [((number + 1) % count, generator.randrange(count)) for number in range(count)]


def _size(space: AddressSpace) -> float:
    """KiB that links hold."""
    return sum(each.used_size for each in space.reservations) / 1024


def measure(shape: str, count: int, *, batched: bool) -> None:
    """Print one line of the table."""
    objects = [_object(n, *calls) for n, calls in enumerate(_calls(shape, count))]
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
        jit.lookup("F00000")
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
        f"{shape:7} {'two batches' if batched else 'one by one':11} {count:6} "
        + "".join(f"{each:9.1f}" for each in microseconds)
        + "   "
        + "".join(f"{each:9.0f}" for each in sizes)
    )


def alone() -> float:
    """Microseconds of reading and linking one object, without a session's bookkeeping."""
    from bench.architectures import measure as measure_link  # noqa: PLC0415 - the same as there

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "f.o")
        path.write_bytes(_object(0, 0, 0))
        return 1e6 * measure_link(path)[0]


def main() -> None:
    """Print the table."""
    print(f"one object alone: {alone():.0f} µs")
    print("                                  µs per object            KiB in use of")
    print("shape   linked     objects      add   look up   remove        all     half     none")
    for batched in (True, False):
        for shape in ("chain", "circle", "random"):
            for count in COUNTS:
                measure(shape, count, batched=batched)


if __name__ == "__main__":
    main()
