"""The sandbox of jitlink's executor: what it forbids, what still works, and what it says."""

from __future__ import annotations

import errno
import gc
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import jitlink
from jitlink import tasks
from jitlink.errors import ExecutorError
from jitlink.executor import (
    ExecutorCrashedError,
    ExecutorExitedError,
    RemoteExecutorProcessControl,
    Sandbox,
)
from jitlink.executor.remote.process import ChildProcess, own_executor
from jitlink.executor.remote.sandbox import FEATURES, sandbox_of
from tests.executor.remote.forbidden import ACTS, ENDS, Act
from tests.executor.remote.sandboxes import Place, launched, launcher, outcome
from tests.toolchain import compile_c, report_missing, require

pytestmark = pytest.mark.usefixtures("sandboxes")

ENFORCED = dict.fromkeys(FEATURES)


@pytest.mark.parametrize("name", ACTS)
def test_an_act_that_is_forbidden(name: str, place: Place) -> None:
    act: Act = ACTS[name]
    compiled = place.compiled(act.body)
    assert errno.errorcode.get(outcome(compiled, place.sandbox())) == errno.errorcode[act.refusal]
    assert place.memory.value == b"content"
    assert {file.name for file in place.outside.iterdir()} == {"file", "removed", "renamed"}


@pytest.mark.parametrize("name", ACTS)
def test_the_act_is_possible_without_a_sandbox(name: str, place: Place) -> None:
    act: Act = ACTS[name]
    number = outcome(place.compiled(act.body), None)
    if number and not act.is_common:
        report_missing(f"a system where every process may: {name} ({os.strerror(number)})")
    assert number == 0


def test_exec(place: Place) -> None:
    compiled = place.compiled('execl("/bin/true", "true", (char *)0); return errno;')
    assert outcome(compiled, place.sandbox()) == errno.EPERM
    with pytest.raises(ExecutorExitedError, match="status 0"):
        outcome(compiled, None)


@pytest.mark.parametrize("name", ENDS)
def test_an_act_that_ends_it(name: str, place: Place) -> None:
    body, message = ENDS[name]
    compiled = place.compiled(body)
    with pytest.raises(ExecutorCrashedError, match=message):
        outcome(compiled, place.sandbox(cpu_time=1, file_size=1 << 20))
    assert outcome(compiled, None) == 0


def test_crash_reports(place: Place) -> None:
    """They name functions of linked code, and of libraries."""
    with (
        pytest.raises(ExecutorCrashedError, match="ended by SIGABRT") as caught,
        launched(place.sandbox()) as executor,
        jitlink.load(place.compiled("abort();"), executor=executor) as library,
    ):
        library.act()
    assert re.search(r"\babort \+ \d+ \(.*/libc\.so\.6\)\n.* act \+ ", str(caught.value))


def test_forbidden_calls_can_end_it(place: Place) -> None:
    compiled = place.compiled(ACTS["inet"].body)
    with pytest.raises(ExecutorCrashedError, match=r"SIGSYS; .* system call \d+ \(socket\)"):
        outcome(compiled, place.sandbox(kill=True))


def test_calls_of_another_architecture_end_it(place: Place) -> None:
    # Number 5 is open there.
    body = '__asm__ volatile("int $0x80" : : "a"(5), "b"(0), "c"(0), "d"(0) : "memory");'
    with pytest.raises(ExecutorCrashedError, match="SIGSYS"):
        outcome(place.compiled(body), place.sandbox())
    # The same numbers with the bit of x32.
    body = "REFUSED(syscall(0x40000000 | SYS_socket, AF_INET, SOCK_STREAM, 0));"
    assert outcome(place.compiled(body), place.sandbox()) == errno.ENOSYS


def test_all_other_system_calls_fail(place: Place) -> None:
    """Those of the list are tried above; none of the others is carried out."""
    runtime = Path(jitlink.__file__).parent / "runtime"
    sources = ("executor/system_calls.c", f"machines/{os.uname().machine}.h")
    texts = [(runtime / source).read_text() for source in sources]
    listed = set(re.findall(r"SYS_\w+", "".join(texts)))
    listed -= {"SYS_clone3", "SYS_openat2", "SYS_seccomp", "SYS_memfd_create"}
    body = f"""
    static const int listed[] = {{{", ".join(sorted(listed))}}};
    for (int number = 0; number < 1000; number++) {{
      /* The kernel's own, for its probes, which no filter sees. */
      int is_listed = number == 335 || number == 336;
      for (unsigned each = 0; each < sizeof listed / sizeof *listed; each++)
        is_listed |= listed[each] == number;
      int expected = number == SYS_clone3 || number == SYS_openat2 || number > 462 ? ENOSYS : EPERM;
      errno = 0;
      if (!is_listed && (syscall(number, -1, -1, -1, -1, -1, -1) != -1 || errno != expected))
        return number + 1000;
    }}
    """
    assert (
        outcome(
            place.compiled(body), place.sandbox(network=True, processes=10**6, accept=["processes"])
        )
        == 0
    )


def test_memory_for_code_can_be_released() -> None:
    """Though its descriptor stays open: the sandbox ends what tries to close that."""
    with launched(Sandbox(kill=True)) as executor:
        services = executor.services
        memory = services.dialect.shared_memory
        mapped = tasks.run(executor.mappings())
        (start,) = [each.start for each in mapped if each.path.startswith("/memfd:")]
        tasks.run(services.call(memory.release, [start]))
        assert executor.is_alive


def test_what_is_at_addresses() -> None:
    """The list of mappings can be read, though no file can be opened."""
    names = ("malloc", "environ", "_ZTVSt9exception")
    with launched(None) as executor:
        found = tasks.run(executor.lookup_symbols(names))
        expected = tasks.run(executor.describe_addresses([each or 0 for each in found]))
    assert None not in expected
    with launched(Sandbox()) as executor:
        found = tasks.run(executor.lookup_symbols(names))
        described = tasks.run(executor.describe_addresses([each or 0 for each in found]))
    assert described == expected


def test_memory_for_code_is_not_writable(place: Place) -> None:
    """Not by its descriptor, not by another one, and it is there."""
    body = """
    char path[64];
    int found = 0;
    for (int file = 3; file < 1024; file++) {
      if (fcntl(file, F_GET_SEALS) <= 0)
        continue;
      found++;
      snprintf(path, sizeof path, "/proc/self/fd/%d", file);
      int again = open(path, O_RDWR);
      for (int n = 0; n < 2; n++, file = again) {
        if (file < 0)
          continue;
        if (mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) != MAP_FAILED) return -1;
        if (write(file, "", 1) >= 0 || !ftruncate(file, 0)) return -2;
      }
      break;
    }
    return found;
    """
    assert outcome(place.compiled(body), place.sandbox()) == 1


def test_what_is_allowed(place: Place) -> None:
    body = """
    char text[16] = {0};
    int file = open(READ "/file", O_RDONLY);
    REFUSED(file);
    REFUSED(read(file, text, 15));
    if (strcmp(text, "content")) return -1;
    FILE *made = fopen(WRITE "/made", "w");
    if (!made || fputs("made", made) < 0 || fclose(made)) return errno;
    REFUSED(rename(WRITE "/made", WRITE "/renamed"));
    REFUSED(truncate(WRITE "/renamed", 2));
    REFUSED(mkdir(WRITE "/directory", 0700));
    REFUSED(unlink(WRITE "/file"));
    REFUSED(raise(SIGURG));
    REFUSED(kill(getpid(), SIGURG));
    """
    assert outcome(place.compiled(body), place.sandbox()) == 0
    assert (place.write / "renamed").read_text() == "ma"
    assert {each.name for each in place.write.iterdir()} == {"renamed", "directory"}


def test_network(place: Place) -> None:
    sandbox = place.sandbox(network=True)
    assert outcome(place.compiled(ACTS["connect"].body), sandbox) == 0
    for name in ("unix", "netlink", "pair of sockets"):
        assert outcome(place.compiled(ACTS[name].body), sandbox) == errno.EPERM
    with launched(sandbox) as executor:
        assert executor.sandbox_report == {
            name: None for name in FEATURES if name not in ("network", "cpu-time", "file-size")
        }


def test_a_terminal(place: Place) -> None:
    body = """
    struct termios settings;
    if (!isatty(0)) return -1;
    REFUSED(ioctl(0, TCGETS, &settings));
    REFUSED(ioctl(0, TCSETS, &settings));
    """
    compiled = place.compiled(body)
    ends, kept = os.openpty(), os.dup(0)
    os.dup2(ends[1], 0)
    try:
        assert outcome(compiled, place.sandbox()) == errno.EPERM
        assert outcome(compiled, None) == 0
    finally:
        os.dup2(kept, 0)
        for file in (kept, *ends):
            os.close(file)


def test_processes(place: Place) -> None:
    sandbox = place.sandbox(processes=100_000, accept=["processes"])
    assert outcome(place.compiled(ACTS["fork"].body), sandbox) == 0
    for name in ("namespace", "kill", "ptrace"):
        assert outcome(place.compiled(ACTS[name].body), sandbox) == errno.EPERM
    child = 'int child = fork(); if (!child) _exit(open(OUTSIDE "/file", O_RDONLY) >= 0);'
    child += "int status; waitpid(child, &status, 0); return status;"
    assert outcome(place.compiled(child), sandbox) == 0


def test_the_number_of_processes(place: Place) -> None:
    """It is for the system's users, but root."""
    compiled = place.compiled(ACTS["fork bomb"].body)
    script = launcher(place)
    if os.getuid() == 0:
        with (
            pytest.raises(ExecutorError, match=r"cannot enforce processes: .*root's processes"),
            launched(Sandbox(processes=10)),
        ):
            pass
        user = "--reuid=64123 --regid=64123 --clear-groups"
        script = launcher(place, before=f"{require('setpriv')} {user}")
    for sandbox, expected in ((None, 0), (Sandbox(processes=20), errno.EAGAIN)):
        with (
            RemoteExecutorProcessControl.launch(script, sandbox=sandbox) as executor,
            jitlink.load(compiled, executor=executor) as library,
        ):
            assert library.act() == expected


def test_the_report(place: Place) -> None:
    with launched(place.sandbox(cpu_time=60, file_size=1 << 30)) as executor:
        assert executor.sandbox_report == ENFORCED
    with launched(Sandbox()) as executor:
        assert set(ENFORCED) - set(executor.sandbox_report) == {"memory", "cpu-time", "file-size"}
    with launched(None) as executor:
        assert executor.sandbox_report == {}


LIBRARY = "int answer(void) { return 42; }"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / "libraries" / "libanswer.so"
    path.parent.mkdir()
    compiled = compile_c(LIBRARY, "gcc", ("-O1", "-fPIC"))
    subprocess.run([require("gcc"), "-shared", compiled, "-o", path], check=True)
    return path


def _answer(executor: RemoteExecutorProcessControl, path: Path) -> int:
    handle = tasks.run(executor.load_dylib(path))
    (address,) = tasks.run(executor.lookup_symbols(["answer"], handle))
    assert address is not None
    return tasks.run(executor.run_as_void_function(address))


@contextmanager
def output_to(path: str | Path) -> Iterator[None]:
    """Standard output is a file, which is not the one that pytest captures it in."""
    kept, file = os.dup(1), os.open(path, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(file)


def test_libraries(library: Path, place: Place) -> None:
    # One that was loaded before.
    with launched(place.sandbox(libraries=[library])) as executor:
        assert _answer(executor, library) == 42
    # One in a directory.
    sandbox = Sandbox(libraries=[library.parent])
    with output_to(os.devnull), launched(sandbox) as executor:
        assert executor.sandbox_report["code"] is None
        assert _answer(executor, library) == 42
        compiled = place.compiled(ACTS["code of a memory file"].body)
        with jitlink.load(compiled, executor=executor) as linked:
            assert linked.act() == errno.EPERM
    # One that can be read, and is no code then.
    with (
        launched(Sandbox(read=[library.parent])) as executor,
        pytest.raises(ExecutorError, match="failed to map segment"),
    ):
        _answer(executor, library)
    with launched(Sandbox()) as executor, pytest.raises(ExecutorError, match="Permission denied"):
        _answer(executor, library)
    with (
        pytest.raises(ExecutorError, match=r"cannot load /no/library\.so"),
        launched(Sandbox(libraries=["/no/library.so"])),
    ):
        pass


def test_executable_stacks(library: Path) -> None:
    """Stacks that a library has made executable are no memory for a sandbox."""
    made = library.with_name("libstacks.so")
    words = [str(require("gcc")), "-shared", "-zexecstack", str(library), "-o", str(made)]
    subprocess.run(words, check=True)
    with (
        pytest.raises(ExecutorError, match="cannot enforce code: memory is writable and execut"),
        launched(Sandbox(libraries=[made])),
    ):
        pass


THREAD_LOCALS = """
#include <pthread.h>
static __thread int count = 40;
static void *run(void *unused) { (void)unused; return (void *)(long)++count; }
int act(void) {
  pthread_t thread;
  void *result;
  count = 5;
  if (pthread_create(&thread, 0, run, 0) || pthread_join(thread, &result)) return -1;
  return (int)(long)result + (count == 5);
}
"""


def test_thread_local_variables(library: Path) -> None:
    """They are in libraries that this process writes for the executor."""
    compiled = compile_c(THREAD_LOCALS, "gcc", ("-O1", "-fPIC"))
    for sandbox in (Sandbox(), Sandbox(libraries=[library.parent])):
        with output_to(os.devnull), launched(sandbox) as executor:
            directory = Path(executor.library_directory or "")
            for _ in range(3):
                with jitlink.load(compiled, executor=executor) as loaded:
                    assert loaded.act() == 42
            assert list(directory.iterdir()) == []
        assert not directory.exists()


@pytest.mark.serial("counts descriptors")
def test_nothing_is_left(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of sandboxes that were not closed, and of executors that have crashed."""
    monkeypatch.setattr(tempfile, "tempdir", str(place.write))

    def state() -> tuple[list[Path], int]:
        gc.collect()
        return sorted(place.write.iterdir()), len(list(Path("/proc/self/fd").iterdir()))

    compiled = place.compiled("abort();")
    before = state()
    for _ in range(3):
        executor = RemoteExecutorProcessControl.launch(sandbox=place.sandbox())
        with (
            pytest.raises(ExecutorCrashedError, match="SIGABRT"),
            jitlink.load(compiled, executor=executor) as library,
        ):
            library.act()
        executor.close()
        with pytest.raises(ExecutorError):
            RemoteExecutorProcessControl.launch(sandbox=Sandbox(read=["/nothing"]))
    assert state() == before


def test_libraries_that_could_be_written(library: Path, place: Place, tmp_path: Path) -> None:
    with (
        pytest.raises(ExecutorError, match=r"cannot enforce code: .* files can be written"),
        launched(place.sandbox(libraries=[library.parent])),
    ):
        pass
    with (
        output_to(tmp_path / "output"),
        pytest.raises(ExecutorError, match=r"cannot enforce code: .* output or error is a file"),
        launched(Sandbox(libraries=[library.parent])),
    ):
        pass


@pytest.mark.parametrize("directory", ["/", "/proc", "/proc/self"])
def test_directories_with_the_processs_memory(directory: str) -> None:
    with (
        pytest.raises(ExecutorError, match="cannot enforce code: /proc/self/mem can be written"),
        launched(Sandbox(write=[directory])),
    ):
        pass


def test_a_directory_that_is_not_there() -> None:
    with (
        pytest.raises(ExecutorError, match="cannot enforce files: /no/directory: No such file"),
        launched(Sandbox(read=["/no/directory"])),
    ):
        pass


def test_memory_of_other_kinds(place: Place) -> None:
    with pytest.raises(ValueError, match="memory of the kind generic is written by the executor"):
        RemoteExecutorProcessControl.launch(sandbox=Sandbox(), memory="generic")
    sandbox = place.sandbox(accept=["code"])
    with RemoteExecutorProcessControl.launch(sandbox=sandbox, memory="generic") as executor:
        assert "gives no memory for code" in (executor.sandbox_report["code"] or "")
        with jitlink.load(place.compiled(ACTS["inet"].body), executor=executor) as library:
            assert library.act() == errno.EPERM


def test_an_executor_that_listens_in_a_sandbox(place: Place) -> None:
    own = own_executor()
    assert own is not None
    words = [own, "listen=127.0.0.1:0", "--sandbox", "--sandbox-accept=code"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline().rpartition(":")[2])
        with RemoteExecutorProcessControl.connect("127.0.0.1", port) as executor:
            assert executor.sandbox_report["network"] is None
            compiled = place.compiled(ACTS["connect"].body)
            with jitlink.load(compiled, executor=executor) as library:
                assert library.act() == errno.EPERM
            # The connection cannot be turned to another address.
            again = place.compiled("""
            struct sockaddr nothing = {AF_UNSPEC, {0}};
            for (int file = 0; file < 64; file++)
              if (!connect(file, &nothing, sizeof nothing)) return -1;
            """)
            with jitlink.load(again, executor=executor) as library:
                assert library.act() == 0
        assert server.wait(20) == 0


def test_other_descriptors_are_closed(place: Place) -> None:
    script = launcher(place, f"9<>{place.outside}/file")
    compiled = place.compiled("REFUSED(fcntl(9, F_GETFD));")
    for sandbox, expected in ((None, 0), (place.sandbox(), errno.EBADF)):
        with (
            RemoteExecutorProcessControl.launch(script, sandbox=sandbox) as executor,
            jitlink.load(compiled, executor=executor) as library,
        ):
            assert library.act() == expected


def test_memory_for_code_that_is_not_sealed() -> None:
    file = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
    os.ftruncate(file, 1 << 20)
    try:
        child = ChildProcess([own_executor() or "", "--sandbox", f"--sandbox-code={file}"], [file])
        assert child.wait(20) == 1
        assert "cannot enforce code: the controller's memory for code is not sealed" in child.stderr
        child.channel.close()
    finally:
        os.close(file)


def test_an_executor_without_sandboxes() -> None:
    program = require("llvm-jitlink-executor-22")
    with pytest.raises(ExecutorError):
        RemoteExecutorProcessControl.launch(program, sandbox=Sandbox())


def test_settings() -> None:
    settings = ["", "network", "memory=5", "cpu-time=6", "read=/a", "read=/b,c", "library=/d"]
    sandbox = sandbox_of([*settings, "accept=files"])
    assert sandbox == Sandbox(
        memory=5,
        cpu_time=6,
        read=["/a", "/b,c"],
        libraries=["/d"],
        network=True,
        accept=["files"],
    )
    words = [word.removeprefix("--sandbox").removeprefix("-") for word in sandbox.options()]
    assert sandbox_of(words) == sandbox
    for wrong in ("networks", "network=1", "memory", "memory=-1", "memory=1k", "read", "read="):
        with pytest.raises(ValueError, match="is no setting of a sandbox"):
            sandbox_of([wrong])
    with pytest.raises(ValueError, match="memory of a sandbox is -1"):
        Sandbox(memory=-1)
    with pytest.raises(ValueError, match="file is no feature"):
        Sandbox(accept=["file"])
    with pytest.raises(ValueError, match="is no path"):
        Sandbox(write=[""])
    with pytest.raises(TypeError, match="read of a sandbox is a sequence"):
        Sandbox(read="/usr")
