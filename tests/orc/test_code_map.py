"""What has been linked into an executor, by address."""

from pathlib import Path

import pytest

from jitlink import tasks
from jitlink.errors import JITLinkError
from jitlink.executor import CodeLocation, SelfExecutorProcessControl
from jitlink.executor.code_map import CodeMap
from jitlink.lljit import LLJIT
from tests.toolchain import compile_c

ONE = """static int helper(int x) { return x * 3; }
int (*volatile f)(int) = helper;
int one(int x) { return f(x) + 1; }
"""
TWO = "int one(int x);\nint two(int x) { return one(x) + 2; }"
BROKEN = "int absent(void);\nint broken(void) { return absent(); }"


class _Executor(SelfExecutorProcessControl):
    """The executor of this process, which records what is linked into it."""

    def __init__(self) -> None:
        super().__init__()
        self.code_map = CodeMap()


def compiled(source: str) -> Path:
    return compile_c(source, "gcc", ("-O1", "-fPIC", "-g"))


def located(executor: SelfExecutorProcessControl, *addresses: int) -> list[CodeLocation]:
    return tasks.run(executor.describe_code(addresses))


def test_objects_that_are_linked_together() -> None:
    executor = _Executor()
    with LLJIT(executor=executor) as jit:
        files = [compiled(source) for source in (ONE, TWO)]
        for file in files:
            jit.add_object(file)
        two, one = int(jit.lookup("two")), int(jit.lookup("one"))
        found = located(executor, two, one + 1, one - 1)
        assert [(each.symbol, each.offset) for each in found[:2]] == [("two", 0), ("one", 1)]
        assert [each.file for each in found[:2]] == [str(files[1]), str(files[0])]
        assert [each.line for each in found] == [2, 3, 1]
        # Nothing refers to its symbol.
        assert found[2].symbol == "helper"
        assert str(found[0]).endswith(f"two + 0 ({files[1]}) at {found[0].source}:2")
    assert not located(executor, two)[0].symbol


def test_code_that_is_removed() -> None:
    executor = _Executor()
    with LLJIT(executor=executor) as jit:
        first, second = jit.create_resource_tracker(), jit.create_resource_tracker()
        jit.add_object(compiled(ONE), first)
        address = int(jit.lookup("one"))
        first.transfer_to(second)
        assert located(executor, address)[0].symbol == "one"
        jit.remove(second)
        assert not located(executor, address)[0].graph


def test_links_that_fail() -> None:
    executor = _Executor()
    with LLJIT(executor=executor) as jit:
        jit.add_object(compiled(BROKEN))
        with pytest.raises(JITLinkError):
            jit.lookup("broken")
        assert executor.code_map is not None
        assert not executor.code_map.describe(range(1 << 12))
        assert all(not linked.name.endswith("o") for linked in executor.code_map._graphs)


def test_addresses_of_nothing() -> None:
    found = located(_Executor(), 0, 1, (1 << 64) - 1)
    assert found == [CodeLocation(0), CodeLocation(1), CodeLocation((1 << 64) - 1)]
    assert str(found[1]) == "0x0000000000000001 ??"
