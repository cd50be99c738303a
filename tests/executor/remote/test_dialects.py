"""Dialects are chosen by what an executor offers, and are tables of its services."""

import re

import pytest

from jitlink import tasks
from jitlink.errors import ExecutorError
from jitlink.executor import ProtocolError
from jitlink.executor.remote.dialects import DIALECTS, LLVM_TRUNK, Dialect, dialect_of
from jitlink.executor.remote.memory_kinds import MemoryKind
from jitlink.executor.remote.messages import OpCode, ResultKind
from jitlink.lljit import LLJIT
from jitlink.sps import STRING, WrapperFunctionResult
from tests.executor.remote.executors import KINDS
from tests.executor.remote.fake import FakeExecutor, encoded, services_of
from tests.executor.remote.trunk import FAILURE, trunk_executor
from tests.toolchain import compile_c

SOURCE = r"""
#include <stdlib.h>
static int begun, *ended;
__attribute__((constructor)) static void begin(void) { begun = 1; }
int main(int count, char **words) { return begun * (count + 10 * atoi(words[1])); }
int add(int x) { return x + 1; }
"""


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
def test_a_dialect_is_known_by_its_services(dialect: Dialect) -> None:
    names = {each.name for each in services_of(dialect)}
    assert dialect_of(dict.fromkeys(names, 1)) is dialect
    with pytest.raises(ProtocolError, match="services of none of jitlink, LLVM 22, "):
        dialect_of(dict.fromkeys(names - {dialect.lookup.name}, 1))


@pytest.mark.parametrize("memory", KINDS)
def test_the_dialect_after_version_22(memory: MemoryKind) -> None:
    with trunk_executor(memory) as executor, LLJIT(executor=executor) as jit:
        assert executor.services.dialect is LLVM_TRUNK
        jit.add_object(compile_c(SOURCE, "gcc", ("-O1", "-fPIC")))
        jit.initialize()
        main, add = int(jit.lookup("main")), int(jit.lookup("add"))
        wait = jit.session.wait
        assert wait(executor.run_as_main(main, ["name", "4"])) == 42
        assert wait(executor.run_as_int_function(add, 6)) == 7
        found = wait(executor.lookup_symbols(["malloc", "no_such_symbol"]))
        assert [address is None for address in found] == [False, True]
        word = wait(executor.read_memory(add, 4))
        assert len(word) == 4
        with pytest.raises(ExecutorError, match=r"cannot load /nothing\.so"):
            wait(executor.load_dylib("/nothing.so"))


def test_out_of_band_errors_of_that_dialect_say_why() -> None:
    with trunk_executor("generic") as executor:
        address = executor.services.address(LLVM_TRUNK.run_as_main)
        result = tasks.run(executor.call_wrapper(address, b"short"))
        assert result == WrapperFunctionResult(out_of_band_error=FAILURE)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (STRING.serialize("no such function"), "no such function"),
        (b"abcd", "for a reason that cannot be read: .*"),
    ],
)
def test_an_out_of_band_error(payload: bytes, text: str) -> None:
    with FakeExecutor() as executor:
        executor.connection.setup(20)
        future = executor.call(1)
        message = executor.receive()
        kind = ResultKind.OUT_OF_BAND_ERROR
        executor.send(encoded(OpCode.RESULT, message.sequence, kind, payload))
        error = future.result(20).out_of_band_error
        assert error is not None
        assert re.fullmatch(text, error)


def test_a_result_of_an_unknown_kind() -> None:
    with FakeExecutor() as executor:
        executor.connection.setup(20)
        calls = [executor.call(n) for n in range(2)]
        executor.send(encoded(OpCode.RESULT, executor.receive().sequence, 2))
        for call in calls:
            with pytest.raises(ProtocolError, match="a result of the unknown kind 2"):
                call.result(20)
