"""Memory of this process: instruction caches."""

import pytest

from jitlink.graph import MemProt
from jitlink.memory import mapping
from jitlink.memory.patching import replace_code
from tests.memory.graphs import RETURN_42

PAGE = mapping.PAGE_SIZE
READ_EXEC = MemProt.READ | MemProt.EXEC


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The ranges that are made coherent; emulators, and x86 processors, need that for nothing."""
    ranges: list[tuple[int, int]] = []

    def clear_cache(start: int, end: int) -> None:
        ranges.append((start, end))

    monkeypatch.setattr(mapping, "_COHERENT", False)
    monkeypatch.setattr(mapping, "_clear_cache", lambda: clear_cache)
    return ranges


@pytest.mark.parametrize("prot", [READ_EXEC, READ_EXEC | MemProt.WRITE, MemProt.READ])
def test_code_that_is_written_is_made_coherent(
    prot: MemProt, flushed: list[tuple[int, int]]
) -> None:
    place = mapping.reserve(2 * PAGE)
    assert place is not None
    mapping.map_zeroed(place, PAGE, PAGE)
    mapping.protect_written(place, PAGE, prot)
    assert flushed == ([(place, place + PAGE)] if prot & MemProt.EXEC else [])
    mapping.release(place, 2 * PAGE)


def test_code_that_is_replaced_is_made_coherent_where_it_is(
    flushed: list[tuple[int, int]],
) -> None:
    place = mapping.reserve(PAGE)
    assert place is not None
    mapping.map_zeroed(place, PAGE, PAGE)
    mapping.protect_written(place, PAGE, READ_EXEC)
    flushed.clear()
    replace_code({place: RETURN_42.ljust(PAGE, b"\0")})
    (copy, _), (start, end) = flushed
    assert copy != start
    assert (start, end) == (place, place + PAGE)
    mapping.release(place, PAGE)


def test_the_function_of_the_compiler_s_library() -> None:
    mapping._clear_cache()(0, 0)
