"""Direct calls in other processes, repointed while threads there run them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from jitlink import tasks
from jitlink.errors import AllocationError
from jitlink.executor import ExecutorCrashedError, RemoteExecutorProcessControl
from jitlink.executor.remote.memory_kinds import MemoryKind
from jitlink.lljit import LLJIT
from jitlink.orc.call_sites import CallSiteOutOfReachError, CallSiteRecorder, SplitCallSiteError
from jitlink.runtime import patching
from jitlink.runtime.linked import OptionalFunctions, functions_of
from tests.executor.remote.executors import FOREIGN, PIPES, Setting, started
from tests.toolchain import compile_c, report_missing

BODIES = "int old(void) { return 1; } int new(void) { return 2; }"
CALLERS = "int old(void); int call(int x) { return old() + x; } int tail(int x) { return old(); }"
THREADS = r"""
#include <pthread.h>
int old(void), straddling(int);
static pthread_t threads[3];
static volatile int done, bad, loops[3];
static void *call(void *argument) {
    volatile int *loop = argument;
    while (!done) {
        int got = old();
        if ((got != 1 && got != 2) || straddling(1000) != 1000) bad++;
        ++*loop;
    }
    return 0;
}
int start(int count) {
    done = bad = 0;
    for (int n = 0; n < count; n++)
        if (pthread_create(&threads[n], 0, call, (void *)&loops[n])) return 0;
    return 1;
}
int least(int count) {
    int found = loops[0];
    for (int n = 1; n < count; n++) if (loops[n] < found) found = loops[n];
    return found;
}
int stop(int count) {
    done = 1;
    for (int n = 0; n < count; n++) pthread_join(threads[n], 0);
    return bad;
}
"""
# So far from the other one that both halves of the distance change.
FAR = """
    .text
    .zero 0x18020, 0xcc
    .globl far
far:
    mov $2, %eax
    ret
"""
STRADDLING = Path(__file__).with_name("straddling.s")
PIC = ("-O1", "-fPIC", "-fno-inline")


class Code(NamedTuple):
    """A session in an executor, with a recorder of calls of `old`."""

    executor: RemoteExecutorProcessControl
    jit: LLJIT
    recorder: CallSiteRecorder

    def add(self, source: Path | str, suffix: str = ".c") -> None:
        self.jit.add_object(compile_c(source, "gcc", PIC, suffix=suffix))

    def run(self, name: str, argument: int = 0) -> int:
        """Call ``int f(int)``."""
        call = self.executor.run_as_int_function(int(self.jit.lookup(name)), argument)
        return self.jit.session.wait(call)

    def repoint(self, name: str) -> int:
        return self.recorder.repoint("old", int(self.jit.lookup(name)))

    def pages(self) -> list[tuple[int, int, str]]:
        """The mappings of the executor: start, end and permissions."""
        assert self.executor.process is not None
        lines = Path(f"/proc/{self.executor.process.pid}/maps").read_text().splitlines()
        found = [re.match(r"(\w+)-(\w+) (\S+)", line) for line in lines]
        return [(int(each[1], 16), int(each[2], 16), each[3]) for each in found if each]


@pytest.fixture(params=PIPES, ids=str)
def code(request: pytest.FixtureRequest) -> Iterator[Code]:
    with started(request.param) as executor, LLJIT(executor=executor) as jit:
        recorder = CallSiteRecorder(["old"])
        jit.layer.add_plugin(recorder)
        created = Code(executor, jit, recorder)
        created.add(BODIES)
        yield created


def test_calls_are_repointed(code: Code) -> None:
    code.add(CALLERS)
    assert (code.run("call", 5), code.run("tail")) == (6, 1)
    assert len(code.recorder.sites("old")) == 2
    for _ in range(3):
        assert code.repoint("new") == 2
        assert (code.run("call", 5), code.run("tail")) == (7, 2)
        assert code.repoint("old") == 2
        assert (code.run("call", 5), code.run("tail")) == (6, 1)


def test_calls_are_repointed_after_a_restart(code: Code) -> None:
    code.add(CALLERS)
    for _ in range(2):
        assert code.run("call", 5) == 6
        assert code.repoint("new") == 2
        assert (code.run("call", 5), code.run("tail")) == (7, 2)
        code.jit.restart_executor()


@pytest.mark.parametrize("setting", FOREIGN, ids=str)
def test_calls_of_other_processors_are_repointed(setting: Setting) -> None:
    with started(setting) as executor, LLJIT(executor=executor) as jit:
        recorder = CallSiteRecorder(["old"])
        jit.layer.add_plugin(recorder)
        code = Code(executor, jit, recorder)
        # On RISC-V only calls within a link can be changed.
        one_link = f"#pragma weak old\n{BODIES} {CALLERS}"
        sources = (one_link,) if setting.kind == "riscv64" else (BODIES, CALLERS)
        flags = (*PIC, "-ffunction-sections", "-mrelax") if setting.kind == "riscv64" else PIC
        for source in sources:
            jit.add_object(compile_c(source, "zig", flags, target=setting.target))
        assert (code.run("call", 5), code.run("tail")) == (6, 1)
        try:
            assert code.repoint("new") == 2
        except AllocationError as error:
            # Emulators before qemu 10 cannot move shared memory.
            assert setting.memory == "shared"
            assert "as emulators and sandboxes cannot" in str(error)  # noqa: PT017 - or there is none
            assert (code.run("call", 5), code.run("tail")) == (6, 1)
            return
        for name, expected in (("new", (7, 2)), ("old", (6, 1)), ("new", (7, 2))):
            assert code.repoint(name) == 2
            assert (code.run("call", 5), code.run("tail")) == expected


def test_calls_of_several_instructions_are_not_changed() -> None:
    (setting, *_) = (each for each in FOREIGN if each.kind == "riscv64")
    with started(setting) as executor, LLJIT(executor=executor) as jit:
        recorder = CallSiteRecorder(["old"])
        jit.layer.add_plugin(recorder)
        code = Code(executor, jit, recorder)
        for source in (BODIES, CALLERS):
            jit.add_object(compile_c(source, "zig", PIC, target=setting.target))
        assert (code.run("call", 5), code.run("tail")) == (6, 1)
        with pytest.raises(
            SplitCallSiteError, match=r"the call of old at 0x.*more calls"
        ) as caught:
            code.repoint("new")
        assert (caught.value.name, caught.value.count) == ("old", 2)
        assert caught.value.site in {each.address for each in recorder.sites("old")}
        assert (code.run("call", 5), code.run("tail")) == (6, 1)


def test_calls_are_repointed_while_threads_run_them(code: Code) -> None:
    code.add(THREADS)
    code.add(FAR, ".s")
    code.add(STRADDLING)
    assert code.run("straddling", 10) == 10
    assert {each.address % 4096 for each in code.recorder.sites("old")} >= {4096 - 2}
    assert code.run("start", 3) == 1
    for number in range(300):
        assert code.repoint("old" if number % 2 else "far") == 2
    before = code.run("least", 3)
    while code.run("least", 3) < before + 3:
        pass
    assert code.run("stop", 3) == 0


def test_no_page_of_code_is_writable(code: Code) -> None:
    code.add(CALLERS)
    code.run("tail")
    before = len(code.pages())
    for _ in range(20):
        code.repoint("new")
    pages = code.pages()
    (site, _) = code.recorder.sites("old")
    (permissions,) = (kind for start, end, kind in pages if start <= site.address < end)
    assert permissions[:3] == "r-x"
    assert not [kind for _, _, kind in pages if kind.startswith("rwx")]
    # The functions that do it have been linked, and a moved page may be a mapping of its own.
    assert len(pages) <= before + 12


def test_memory_that_was_repointed_is_used_again(code: Code) -> None:
    addresses = set()
    for round_number in range(6):
        tracker = code.jit.create_resource_tracker()
        source = CALLERS + f"int number(int x) {{ return {round_number}; }}"
        code.jit.add_object(compile_c(source, "gcc", PIC), tracker)
        addresses.add(int(code.jit.lookup("call")))
        assert (code.run("call", 5), code.run("number")) == (6, round_number)
        assert code.repoint("new") == 2
        assert (code.run("call", 5), code.run("number")) == (7, round_number)
        code.jit.remove(tracker)
        assert code.recorder.sites("old") == []
        assert code.repoint("new") == 0
    assert len(addresses) <= 6


def test_a_target_out_of_reach_changes_nothing(code: Code) -> None:
    code.add(CALLERS)
    assert code.run("call", 5) == 6
    target = code.recorder.sites("old")[0].address + (1 << 32)
    with pytest.raises(CallSiteOutOfReachError):
        code.recorder.repoint("old", target)
    assert code.run("call", 5) == 6


# Mappings that cannot be merged, until the system refuses more; all but some are kept.
MAPPINGS = """
#include <sys/mman.h>
enum { MOST = 1 << 22 };
static char *first;
static long count;
int fill(int left) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    first = mmap(0, (long)MOST * 4096, PROT_NONE, flags, -1, 0);
    for (count = 1; count < MOST; count += 2)
        if (mprotect(first + count * 4096, 4096, PROT_READ)) break;
    for (int n = left; n > 0; n -= 2) mprotect(first + (count -= 2) * 4096, 4096, PROT_NONE);
    if (left % 2) mprotect(first + (MOST - 1) * 4096L, 4096, PROT_READ);
    return count < MOST;
}
int drain(int x) { return munmap(first, (long)MOST * 4096); }
"""


@pytest.mark.parametrize("memory", ["shared", "generic"])
def test_an_executor_that_runs_out_of_mappings(memory: MemoryKind) -> None:
    outcomes = set()
    setting = Setting("jitlink", "pipes", memory)
    with started(setting) as executor, LLJIT(executor=executor) as jit:
        recorder = CallSiteRecorder(["old"])
        jit.layer.add_plugin(recorder)
        code = Code(executor, jit, recorder)
        code.add(BODIES)
        code.add(MAPPINGS)
        code.add(CALLERS)
        assert (code.run("call", 5), code.repoint("new"), code.repoint("old")) == (6, 2, 2)
        for left in range(5, 10):
            if not code.run("fill", left):
                report_missing("a limit of mappings, vm.max_map_count, below two million")
            try:
                code.repoint("new" if left % 4 else "old")
                outcomes.add("")
            except AllocationError as error:
                outcomes.add(re.sub("0x[0-9a-f]+", "X", str(error)))
            # Every call enters one of the two, whatever has failed.
            assert code.run("call", 5) in {6, 7}
            code.run("drain")
        reason = "Cannot allocate memory" if memory == "generic" else "the executor has run out"
        assert [each for each in outcomes if each.startswith(f"cannot replace code: {reason}")]
        assert "" in outcomes
        # Other code is placed and repointed as before.
        again = CALLERS.replace("call", "call2").replace("tail", "tail2")
        code.add(again)
        assert code.run("call2", 5) == 6


# A wrapper function that maps none of one range.
REFUSING = """
#include <stdlib.h>
struct result { char *data; unsigned long size; };
struct result refuse(const char *data, unsigned long size) {
    struct result result = {calloc(2, 8), 16};
    result.data[0] = 1;
    return result;
}
"""


def test_pages_that_cannot_be_mapped_again(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting("jitlink", "pipes", "shared")
    with started(setting) as executor, LLJIT(executor=executor) as jit:
        recorder = CallSiteRecorder(["old"])
        jit.layer.add_plugin(recorder)
        code = Code(executor, jit, recorder)
        code.add(BODIES)
        code.add(REFUSING)
        tracker = jit.create_resource_tracker()
        jit.add_object(compile_c(CALLERS, "gcc", PIC), tracker)
        place = int(jit.lookup("call"))
        code.repoint("new")
        functions = tasks.run(functions_of(executor, "patching"))
        refuse = {"__jitlink_map_originals": int(jit.lookup("refuse"))}

        async def refusing(*_arguments: object) -> OptionalFunctions:
            return functions._replace(addresses={**functions.addresses, **refuse})

        monkeypatch.setattr(patching, "functions_of", refusing)
        with pytest.raises(AllocationError, match="the executor has run out of mappings"):
            code.repoint("old")
        monkeypatch.undo()
        assert code.run("call", 5) == 6
        with pytest.raises(AllocationError, match=r"code at 0x\w+ cannot be replaced again"):
            code.repoint("new")
        assert code.run("call", 5) == 6
        jit.remove(tracker)
        for number in range(3):
            code.add(CALLERS.replace("call", f"call{number}").replace("tail", f"tail{number}"))
            assert int(jit.lookup(f"call{number}")) & -4096 != place & -4096
            assert code.run(f"call{number}", 5) == 6
        assert code.repoint("new") == 6
        assert code.run("call0", 5) == 7


def test_an_executor_that_is_gone(code: Code) -> None:
    code.add(CALLERS)
    code.run("call", 5)
    new = int(code.jit.lookup("new"))
    code.repoint("new")
    assert code.executor.process is not None
    code.executor.process.kill()
    with pytest.raises(ExecutorCrashedError, match="SIGKILL"):
        code.recorder.repoint("old", new)
