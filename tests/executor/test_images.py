"""Images as the dynamic linker of this process sees them."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jitlink.errors import AllocationError, ExecutorError
from jitlink.executor import SelfExecutorProcessControl
from jitlink.executor import images as module
from jitlink.executor.control import ExecutorProcessControl
from jitlink.executor.images import ProcessImages
from jitlink.memory import mapping, tls_glibc
from jitlink.memory.images import Image, ImageSymbols
from tests.executor.images import (
    global_symbol,
    listed_segments,
    object_at,
    segment_at,
    segments_of,
    symbol_at,
)
from tests.memory.graphs import drive
from tests.toolchain import run, zig_command

SIZE = 4 << 20
NAME = "/somewhere/a program"
PINNED = "/somewhere/another program"


def symbols(first: int, *names: str) -> ImageSymbols:
    count = len(names)
    addresses = np.arange(count, dtype=np.uint64) * np.uint64(16) + np.uint64(first)
    yes, no = np.ones(count, bool), np.zeros(count, bool)
    return ImageSymbols(names, addresses, np.full(count, 8, np.uint64), yes, no, no, no)


@pytest.fixture
def images(request: pytest.FixtureRequest) -> ProcessImages:
    # A library that has looked up a symbol of an image keeps it, but not its memory.
    name = PINNED if "symbols" in request.node.name else NAME
    return ProcessImages(name, exports=True)


@pytest.fixture
def image(images: ProcessImages) -> Iterator[Image]:
    image = images.load(SIZE, 0)
    yield image
    is_pinned = symbol_at(image.start)[0] == PINNED  # type: ignore[index]
    image.unload()
    assert is_pinned or symbol_at(image.start) is None


def test_all_addresses_of_an_image_are_its_own(image: Image) -> None:
    for address in (image.start, image.start + image.size // 2, image.start + image.size - 1):
        assert symbol_at(address) == (NAME, None, 0)
        assert object_at(address) == image.start - mapping.PAGE_SIZE
    assert image.size > SIZE // 2


def test_segments(image: Image) -> None:
    assert segments_of(NAME) == []
    assert segment_at(image.start) is None
    start = image.start + 8 * mapping.PAGE_SIZE
    image.list_segment(1, 8 * mapping.PAGE_SIZE, 0x2000)
    assert segments_of(NAME) == [(NAME, start, start + 0x2000, 5)]
    assert segment_at(start + 0x1FFF) == (NAME, start, start + 0x2000, 5)
    image.list_segment(1, 8 * mapping.PAGE_SIZE, 0)
    assert segments_of(NAME) == []


def test_no_writable_segment_is_listed_before_there_is_memory(image: Image) -> None:
    assert image.size
    assert [each.flags for each in listed_segments() if each.name == NAME] == [4, 4]


def test_symbols(images: ProcessImages, image: Image) -> None:
    exported = symbols(image.start, "jitlink_first", "jitlink_second")
    images.define(exported)
    assert global_symbol("jitlink_second") == image.start + 16
    assert symbol_at(image.start + 18) == (PINNED, "jitlink_second", image.start + 16)
    # Between symbols that have a size there is none.
    assert symbol_at(image.start + 9) == (PINNED, None, 0)
    images.remove(exported)
    assert global_symbol("jitlink_second") is None
    assert symbol_at(image.start + 18) == (PINNED, None, 0)


def test_thousands_of_symbols(images: ProcessImages, image: Image) -> None:
    names = [f"jitlink_many_{number}" for number in range(4000)]
    for start in range(0, 4000, 1000):
        images.define(symbols(image.start + 16 * start, *names[start : start + 1000]))
    for number in range(0, 4000, 97):
        assert global_symbol(names[number]) == image.start + 16 * number
    assert global_symbol("jitlink_many_4000") is None


def test_symbols_are_exported_by_the_image_that_they_are_in(images: ProcessImages) -> None:
    first, second = images.load(SIZE, 0), images.load(SIZE, 0)
    addresses = [first.start, second.start]
    images.define(symbols(first.start, "jitlink_a"))
    images.define(symbols(second.start, "jitlink_b"))
    assert [global_symbol(name) for name in ("jitlink_a", "jitlink_b")] == addresses
    assert symbol_at(second.start) == (PINNED, "jitlink_b", second.start)
    for start, name in zip(addresses, ("jitlink_a", "jitlink_b"), strict=True):
        images.remove(symbols(start, name))
        assert global_symbol(name) is None
    first.unload()
    second.unload()


def test_a_given_address(images: ProcessImages) -> None:
    for below in (1 << 31, 1 << 40):
        address = next(
            place
            for place in range(below - 16 * SIZE, 0, -SIZE)
            if mapping.reserve(SIZE, place) is not None
        )
        mapping.release(address, SIZE)
        image = images.load(SIZE, address)
        assert image.start == address + mapping.PAGE_SIZE
        assert symbol_at(image.start) == (NAME, None, 0)
        # Another one does not fit there.
        with pytest.raises(AllocationError, match="cannot load an image at"):
            images.load(SIZE, address)
        image.list_segment(0, 0, 0x1000)
        assert segment_at(image.start) == (NAME, image.start, image.start + 0x1000, 4)
        image.unload()


@pytest.mark.parametrize("name", ["", "has\0null", "x" * 4000])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(ExecutorError, match="the name of an image has 1 to 3072 bytes"):
        ProcessImages(name, exports=False)


@pytest.mark.parametrize("name", ["x", "größe", "\udcff", "x" * 3000])
def test_names_of_any_length(name: str) -> None:
    image = ProcessImages(name, exports=False).load(SIZE, 0)
    info = symbol_at_bytes(image.start)
    assert info == os.fsencode(name)
    image.unload()


def symbol_at_bytes(address: int) -> bytes:
    info = (ctypes.c_void_p * 4)()
    assert ctypes.CDLL(None).dladdr(ctypes.c_void_p(address), info)
    return ctypes.string_at(info[0] or 0)


def test_sizes_that_cannot_be(images: ProcessImages) -> None:
    for size in (mapping.PAGE_SIZE, 1 << 60):
        with pytest.raises(AllocationError, match="cannot load an image"):
            images.load(size, 0)
    assert segments_of(NAME) == []


def test_an_image_whose_headers_stay_read_only_is_unloaded(
    images: ProcessImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(address: int, size: int, protection: int) -> None:  # noqa: ARG001
        raise AllocationError("refused", size=size)

    before = len(listed_segments())
    with monkeypatch.context() as patch:
        patch.setattr(mapping, "protect", refuse)
        with pytest.raises(AllocationError, match="refused"):
            images.load(SIZE, 0)
    assert len(listed_segments()) == before


@pytest.mark.native("has a record of each page that it maps")
def test_loading_takes_no_commit_charge_of_the_whole_image() -> None:
    # More than a machine has: of a writable mapping, the system would refuse it.
    image = ProcessImages(NAME, exports=False).load(1 << 42, 0)
    assert symbol_at(image.start + (1 << 41)) == (NAME, None, 0)
    image.unload()


def test_other_threads_see_whole_segments_only(image: Image) -> None:
    start, errors = image.start + 0x10000, []
    image.list_segment(2, 0x10000, 0x1000)
    is_done = threading.Event()

    def look() -> None:
        while not is_done.is_set():
            for segment in segments_of(NAME):
                size = segment.end - segment.start
                if segment.start != start or size % 0x1000 or segment.flags != 6:
                    errors.append(segment)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(2000):
        image.list_segment(2, 0x10000, 0x1000 * (number % 3))
    is_done.set()
    for thread in threads:
        thread.join()
    image.list_segment(2, 0x10000, 0)
    assert errors == []


def test_lookups_while_symbols_come_and_go(images: ProcessImages, image: Image) -> None:
    names = [f"jitlink_moving_{number}" for number in range(64)]
    found: set[tuple[int, int | None]] = set()
    is_done = threading.Event()

    def look() -> None:
        while not is_done.is_set():
            found.update((index, global_symbol(name)) for index, name in enumerate(names))

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(300):
        images.define(symbols(image.start, *names))
        images.remove(symbols(image.start, *names))
    is_done.set()
    thread.join()
    assert found <= {
        (index, address) for index in range(64) for address in (None, image.start + 16 * index)
    }


def test_symbols_after_a_fork(images: ProcessImages, image: Image) -> None:
    images.define(symbols(image.start, "jitlink_before"))
    child = os.fork()
    if not child:
        status = 1
        try:
            images.define(symbols(image.start + 32, "jitlink_in_child"))
            seen = [global_symbol(name) for name in ("jitlink_before", "jitlink_in_child")]
            status = int(seen != [image.start, image.start + 32])
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert global_symbol("jitlink_in_child") is None


def test_an_image_that_a_library_is_bound_to_is_unloaded_after_it(tmp_path: Path) -> None:
    """In a process of its own, because the library stays bound."""
    source = tmp_path / "plugin.c"
    source.write_text("extern char jitlink_bound[]; char *get(void) { return jitlink_bound; }")
    library = tmp_path / "plugin.so"
    run([*zig_command("cc"), "-shared", "-fPIC", source, "-o", library])
    code = f"""if True:
        import ctypes, _ctypes
        from tests.executor.test_images import *
        images = ProcessImages(NAME, exports=True)
        image = images.load(SIZE, 0)
        images.define(symbols(image.start, "jitlink_bound"))
        library = ctypes.CDLL({str(library)!r})
        library.get.restype = ctypes.c_void_p
        assert library.get() == image.start
        image.unload()
        # Its addresses are not used again before the library is unloaded.
        assert symbol_at(image.start) is not None
        _ctypes.dlclose(library._handle)
        assert symbol_at(image.start) is None
    """
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_links_do_not_find_symbols_of_images(images: ProcessImages, image: Image) -> None:
    """They would not keep the code that they refer to."""
    images.define(symbols(image.start, "jitlink_unfound", "strlen"))
    executor = SelfExecutorProcessControl()
    found = drive(executor.lookup_symbols(["jitlink_unfound", "strlen", "jitlink_nothing"]))
    assert found[0] is found[2] is None
    assert found[1] not in (None, image.start + 16)
    images.remove(symbols(image.start, "jitlink_unfound", "strlen"))


def test_systems_without_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_glibc, "glibc_version", tuple)
    with pytest.raises(ExecutorError, match="on Linux with the GNU C library only"):
        SelfExecutorProcessControl().create_images(NAME, exports=True)
    with pytest.raises(ExecutorError, match="cannot make linked code an image of itself"):
        ExecutorProcessControl.create_images(SelfExecutorProcessControl(), NAME, exports=True)


def test_a_program_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    module.program_identity.cache_clear()
    monkeypatch.setattr(module, "_HEADER_SIZE", 3)
    with pytest.raises(ExecutorError, match="the program of this process cannot be read"):
        ProcessImages(NAME, exports=True)
