"""The life of an executor's memory: much of it, its use again, and systems that have no more."""

import gc
import os
import random
import re
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from jitlink import tasks
from jitlink.errors import AllocationError
from jitlink.executor import RemoteExecutorProcessControl
from jitlink.executor.remote.memory_kinds import MemoryKind
from jitlink.graph import AllocActionPair, LinkGraph, MemLifetime, WrapperCall
from jitlink.lljit import LLJIT
from jitlink.memory.manager import FinalizedAlloc, JITLinkDylib
from jitlink.memory.mapper import MapperJITLinkMemoryManager
from jitlink.orc import FailedToMaterializeError
from tests.executor.remote.executors import PIPES, Setting, started
from tests.executor.remote.resources import shared_files
from tests.memory.graphs import READ, READ_EXEC, READ_WRITE, add_section, empty_graph
from tests.toolchain import compile_c, report_missing

LONG = os.environ.get("JITLINK_LONG") == "1"
MEGABYTE = 1 << 20
PIC = ("-O1", "-fPIC")
OWN = [setting for setting in PIPES if setting.kind == "jitlink"]


def resident(pid: int | str) -> int:
    """Bytes of a process that are resident, without those of files."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * sum(int(n) for n in re.findall(r"Rss(?:Anon|Shmem):\s+(\d+)", status))


def mappings(pid: int) -> int:
    return len(Path(f"/proc/{pid}/maps").read_text().splitlines())


def shared_memory(pid: int) -> int:
    """Bytes of shared memory that a process maps: those that take memory."""
    found = 0
    for each in Path(f"/proc/{pid}/fd").iterdir():
        # One of them is that of the listing.
        with suppress(FileNotFoundError):
            if "/dev/shm/jitlink" in str(each.readlink()):
                found += 512 * each.stat().st_blocks
    return found


def pid_of(executor: RemoteExecutorProcessControl) -> int:
    assert executor.process is not None
    return executor.process.pid


def forget_peak() -> None:
    """Forget the most memory that this process has used so far."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+)", status)
    assert found is not None
    return 1024 * int(found[1])


def total() -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def large_code(megabytes: int, *, fails: bool = False) -> Path:
    source = f"""
    .text
    .globl f
f:  mov $7, %eax
    ret
    .fill {megabytes << 17}, 8, 0x1122334455667788
    """
    if fails:
        source += ".globl g\ng: call nothing_defines_this@PLT\n"
    return compile_c(source, "gcc", (), suffix=".s")


@pytest.mark.serial("measures memory")
@pytest.mark.parametrize("fails", [False, True], ids=["links", "fails"])
@pytest.mark.parametrize("setting", PIPES, ids=str)
def test_much_code(setting: Setting, fails: bool) -> None:
    megabytes = 100 if LONG else 48
    size = megabytes * MEGABYTE
    compiled = large_code(megabytes, fails=fails)
    with started(setting) as executor, LLJIT(executor=executor) as jit:
        # What is logged is kept by pytest.
        jit.session.error_handler = lambda _: None
        jit.add_object(compile_c("int one(void) { return 1; }", "gcc", PIC))
        jit.lookup("one")
        gc.collect()
        before, there = resident("self"), resident(pid_of(executor))
        tracker = jit.create_resource_tracker()
        forget_peak()
        first = total()
        jit.add_object(compiled, tracker)
        if fails:
            with pytest.raises(FailedToMaterializeError, match="nothing_defines_this"):
                jit.lookup("f")
        else:
            address = int(jit.lookup("f"))
            assert jit.session.wait(executor.run_as_void_function(address)) == 7
        # The file, working memory, and a message if content crosses the wire.
        copies = 2 if setting.memory == "shared" or fails else 3
        assert peak() - first < copies * size + 32 * MEGABYTE
        gc.collect()
        # Working memory has been released, and pages that are shared count there only.
        assert resident("self") - before < 8 * MEGABYTE
        jit.remove(tracker)
        assert resident("self") - before < 8 * MEGABYTE
        assert shared_memory(os.getpid()) < 4 * MEGABYTE
        if setting.memory == "generic" or setting.kind == "jitlink":
            assert resident(pid_of(executor)) - there < 4 * MEGABYTE


def random_graph(random_number: random.Random) -> LinkGraph:
    graph = empty_graph()
    for prot in (READ_EXEC, READ, READ_WRITE):
        section = add_section(graph, prot)
        graph.create_content_block(section, bytes(random_number.randrange(1, 40_000)))
        graph.create_zero_fill_block(section, random_number.randrange(1, 20_000))
    section = add_section(graph, READ, MemLifetime.FINALIZE)
    graph.create_content_block(section, bytes(random_number.randrange(1, 20_000)))
    return graph


@pytest.mark.serial("measures memory")
@pytest.mark.parametrize("setting", PIPES, ids=str)
def test_memory_does_not_grow(setting: Setting) -> None:
    """1,000 links of random sizes, of which 20 are there at any time."""
    random_number = random.Random(1)
    with started(setting) as executor:
        memory, dylib = executor.memory_manager, JITLinkDylib("main")
        kept: list[FinalizedAlloc] = []
        sizes: list[tuple[int, int, int]] = []

        async def link() -> None:
            allocated = await memory.allocate(dylib, random_graph(random_number))
            if random_number.random() < 0.1:
                await allocated.abandon()
            else:
                kept.append(await allocated.finalize())
            while len(kept) > 20:
                chosen = random_number.sample(range(len(kept)), random_number.randrange(1, 5))
                await memory.deallocate([kept.pop(each) for each in sorted(chosen, reverse=True)])

        try:
            for number in range(1000):
                tasks.run(link())
                if number % 100 == 99:
                    pid = pid_of(executor)
                    sizes.append((resident(pid), mappings(pid), shared_memory(os.getpid())))
        finally:
            tasks.run(memory.deallocate(kept))
        # After 300 links it is as large as it gets. LLVM's executor uses nothing again.
        first, last = sizes[2], sizes[-1]
        if (setting.kind, setting.memory) != ("llvm22", "simple-remote"):
            assert last[0] < first[0] + 8 * MEGABYTE
            assert last[1] < first[1] + 100
        assert last[2] <= first[2] + 4 * MEGABYTE
        if isinstance(memory, MapperJITLinkMemoryManager):
            assert len(memory._reservations) <= 1
            assert all(not each.used for each in memory._reservations)
        assert shared_memory(os.getpid()) == 0


@pytest.mark.parametrize("setting", PIPES, ids=str)
def test_a_tracker_is_freed_in_one_call(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    with started(setting) as executor, LLJIT(executor=executor) as jit:
        tracker = jit.create_resource_tracker()
        for number in range(20):
            source = f"int f{number}(void) {{ return {number}; }}"
            jit.add_object(compile_c(source, "gcc", PIC), tracker)
            jit.lookup(f"f{number}")
        calls = []
        connection = executor.connection
        call = connection.call

        async def counted(*arguments: Any, **options: Any) -> object:  # noqa: ANN401
            calls.append(arguments)
            return await call(*arguments, **options)

        monkeypatch.setattr(connection, "call", counted)
        jit.remove(tracker)
        monkeypatch.undo()
        assert len(calls) == 1


ACTIONS = """
struct result { char inline_bytes[8]; unsigned long size; };
static int log, count;
struct result record(const char *data, unsigned long size) {
    struct result success = {{0}, 1};
    log = log * 10 + *data;
    count++;
    return success;
}
int logged(int x) { return log; }
int forget(int x) { log = 0; return count; }
"""


@pytest.mark.parametrize("setting", PIPES, ids=str)
def test_dependants_are_freed_first(setting: Setting) -> None:
    with started(setting) as executor, LLJIT(executor=executor, platform=False) as jit:
        jit.add_object(compile_c(ACTIONS, "gcc", PIC))
        record, memory = int(jit.lookup("record")), executor.memory_manager

        def value(name: str) -> int:
            call = executor.run_as_int_function(int(jit.lookup(name)), 0)
            return jit.session.wait(call)

        async def link(number: int) -> FinalizedAlloc:
            graph = random_graph(random.Random(number))
            for each in (2 * number, 2 * number + 1):
                call = WrapperCall(record, bytes([each]))
                graph.alloc_actions.append(AllocActionPair(call, call))
            return await (await memory.allocate(None, graph)).finalize()

        kept = [tasks.run(link(number)) for number in (1, 2, 3)]
        assert value("logged") == 234567
        assert value("forget") == 6
        tasks.run(memory.deallocate(kept))
        assert value("logged") == 765432


FORKS = """
#include <sys/wait.h>
#include <unistd.h>
static int initialised = 1, zero;
int f(void) {
    pid_t child = fork();
    if (!child) {
        initialised = zero = 2;
        _exit(0);
    }
    waitpid(child, 0, 0);
    return initialised * 10 + zero;
}
"""


@pytest.mark.parametrize("setting", PIPES, ids=str)
def test_a_forked_process_has_variables_of_its_own(setting: Setting) -> None:
    with started(setting) as executor, LLJIT(executor=executor) as jit:
        for _ in range(3):
            tracker = jit.create_resource_tracker()
            jit.add_object(compile_c(FORKS, "gcc", PIC), tracker)
            result = jit.session.wait(executor.run_as_void_function(int(jit.lookup("f"))))
            # LLVM's executors share the memory with their children.
            is_shared = setting.memory == "shared" and setting.kind != "jitlink"
            assert result == (22 if is_shared else 10)
            jit.remove(tracker)


def test_linked_code_closes_the_file_of_shared_memory() -> None:
    """Other content is never mapped in its place."""
    source = """
    #include <fcntl.h>
    #include <stdio.h>
    #include <string.h>
    #include <unistd.h>
    int f(int x) {
        char path[64], target[256];
        int found = 0;
        for (int n = 0; n < 100; n++) {
            snprintf(path, sizeof path, "/proc/self/fd/%d", n);
            long size = readlink(path, target, sizeof target - 1);
            target[size > 0 ? size : 0] = 0;
            if (strstr(target, "/dev/shm/jitlink")) {
                close(n);
                found += open("/etc/passwd", O_RDONLY) == n;
            }
        }
        return found;
    }
    """
    setting = Setting("jitlink", "pipes", "shared")
    with started(setting) as executor, LLJIT(executor=executor) as jit:
        jit.add_object(compile_c(source, "gcc", PIC))
        assert jit.session.wait(executor.run_as_int_function(int(jit.lookup("f")), 0)) == 1
        jit.add_object(compile_c("int g(void) { return 3; }", "gcc", PIC))
        with pytest.raises(FailedToMaterializeError, match="protect memory: Bad file descriptor"):
            jit.lookup("g")
        assert executor.is_alive


@pytest.mark.parametrize("setting", PIPES, ids=str)
def test_no_file_of_shared_memory_is_left(setting: Setting) -> None:
    """LLVM's executors leave the file of what they cannot map."""
    before = shared_files()
    with started(setting) as executor:
        graph = empty_graph()
        graph.create_zero_fill_block(add_section(graph, READ_WRITE), 1 << 47)
        with pytest.raises(AllocationError):
            tasks.run(executor.memory_manager.allocate(None, graph))
        tasks.run(executor.memory_manager.allocate(None, random_graph(random.Random(1))))
    assert not shared_files(pid_of(executor)) - before


def limited(tmp_path: Path, limit: int, program: str) -> Path:
    """An executor whose address space has a limit, in bytes."""
    script = tmp_path / "executor"
    script.write_text(f'#!/bin/sh\nulimit -v {limit >> 10}\nexec {program} "$@"\n')
    script.chmod(0o755)
    return script


@pytest.mark.parametrize("memory", ["shared", "simple-remote", "generic"])
def test_an_executor_with_little_address_space(tmp_path: Path, memory: MemoryKind) -> None:
    program = limited(tmp_path, 400 * MEGABYTE, OWN[0].program)
    executor = RemoteExecutorProcessControl.launch(program, memory=memory, timeout=60)
    with executor, LLJIT(executor=executor) as jit:
        jit.add_object(compile_c("int f(void) { return 3; }", "gcc", PIC))
        address = int(jit.lookup("f"))
        assert jit.session.wait(executor.run_as_void_function(address)) == 3
        source = "char huge[1 << 30]; char *g(void) { return huge; }"
        jit.add_object(compile_c(source, "gcc", PIC))
        with pytest.raises(FailedToMaterializeError, match="cannot reserve 0x4") as caught:
            jit.lookup("g")
        assert isinstance(caught.value.reason, AllocationError)
        jit.add_object(compile_c("int h(void) { return 4; }", "gcc", PIC))
        address = int(jit.lookup("h"))
        assert jit.session.wait(executor.run_as_void_function(address)) == 4


@pytest.mark.parametrize("setting", OWN, ids=str)
def test_this_process_runs_out_of_descriptors(setting: Setting) -> None:
    before = shared_files()
    with started(setting) as executor, LLJIT(executor=executor) as jit:
        jit.add_object(compile_c("int f(void) { return 3; }", "gcc", PIC))
        compile_c("int g(void) { return 3; }", "gcc", PIC)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            manager = executor.memory_manager
            if setting.memory == "shared":
                with pytest.raises(AllocationError, match=r"cannot map .* Too many open files"):
                    tasks.run(manager.allocate(None, random_graph(random.Random(1))))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        address = int(jit.lookup("f"))
        assert jit.session.wait(executor.run_as_void_function(address)) == 3
    assert not shared_files(pid_of(executor)) - before


FULL = """
import os, sys
from jitlink.errors import AllocationError
from jitlink.executor import RemoteExecutorProcessControl
from jitlink.lljit import LLJIT
from jitlink.orc import FailedToMaterializeError

large, small = sys.argv[1:]

def call(executor, jit, name):
    return jit.session.wait(executor.run_as_void_function(int(jit.lookup(name))))

def free():
    found = os.statvfs("/dev/shm")
    return found.f_bavail * found.f_frsize

executor = RemoteExecutorProcessControl.launch(memory="shared")
with executor, LLJIT(executor=executor) as jit:
    jit.add_object(small)
    assert call(executor, jit, "first") == 3
    at_first = free()
    for _ in range(3):
        tracker = jit.create_resource_tracker()
        jit.add_object(large, tracker)
        try:
            jit.lookup("f")
            raise SystemExit("it fits")
        except FailedToMaterializeError as error:
            assert isinstance(error.reason, AllocationError), error
            print(error)
        jit.remove(tracker)
        assert free() == at_first, (free(), at_first)
        assert call(executor, jit, "first") == 3
    # Until nothing is left.
    number = 0
    dylibs = []
    while number < 1000:
        dylib = jit.create_jitdylib(f"dylib{number}")
        dylibs.append(dylib)
        jit.add_object(small, dylib=dylib)
        try:
            jit.lookup("first", dylib=dylib)
        except FailedToMaterializeError as error:
            assert isinstance(error.reason, AllocationError), error
            break
        number += 1
    assert 4 < number < 1000, number
    for dylib in dylibs[:number]:
        address = int(jit.lookup("first", dylib=dylib))
        assert jit.session.wait(executor.run_as_void_function(address)) == 3
    for dylib in dylibs:
        dylib.clear()
    assert free() == at_first, (free(), at_first)
assert not os.listdir("/dev/shm")
print("end")
"""


def test_shared_memory_that_is_full() -> None:
    """In a namespace with little of it: a sparse gigabyte is reserved, and memory ends early."""
    small = "int data[50000] = {1}; int zeros[50000]; int first(void) { return data[0] + 2; }"
    objects = [large_code(24), compile_c(small, "gcc", PIC)]
    setup = "mount -t tmpfs -o size=8m tmpfs /dev/shm"
    namespace = ["unshare", "-m" if os.geteuid() == 0 else "-Urm", "sh", "-c"]
    if subprocess.run([*namespace, setup], capture_output=True, check=False).returncode:
        report_missing("a namespace of mounts for this user")
    words = [sys.executable, "-W", "error", "-c", FULL, *map(str, objects)]
    command = [*namespace, f'{setup} && exec "$0" "$@"', *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "end"
    assert "bytes of shared memory: No space left on device" in done.stdout
