"""Faults on the wire, as jitlink's executor sees them: it ends by itself, and says why.

What is called by its address, or read and written at an address, is the controller's business, and
may crash. Framing, opcodes, sequence numbers, sizes and arguments of services are the executor's.
The tests play a controller, also for an executor that is built with sanitizers.
"""

import importlib.resources
import os
import random
import resource
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from jitlink.executor.remote.dialects import JITLINK, Service
from jitlink.executor.remote.messages import Message, OpCode
from jitlink.runtime import build
from jitlink.sps import AllocActionCallPair, WrapperFunctionCall, WrapperFunctionResult
from jitlink.sps.services import (
    SETUP,
    FinalizeRequest,
    SegmentFinalizeRequest,
    SharedFinalizeRequest,
    SharedSegmentFinalizeRequest,
    SymbolLookupElement,
)
from tests.executor.remote.fake import encoded, messages_of, receive
from tests.executor.remote.listening import PROGRAM
from tests.mutations import Region, mutant
from tests.runtime_programs.building import cached
from tests.toolchain import require, run, zig_command

LONG = os.environ.get("JITLINK_LONG") == "1"
MUTANTS = 10000 if LONG else 400
ARGUMENTS = 10000
AT_ONCE = 100
"""Mutated arguments that one executor is given."""
PAGE = os.sysconf("SC_PAGESIZE")
SECONDS = 20
# Arguments of programs are never freed. What is allocated takes time here, used or not.
_ALLOCATION = "detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=256"
SANITIZERS = {"ASAN_OPTIONS": f"exitcode=99:{_ALLOCATION}", "UBSAN_OPTIONS": "exitcode=99"}
CALLER = """
#include <stddef.h>
typedef struct { char *value; size_t size; } wrapper_result;
typedef wrapper_result dispatch_function(void *, const void *, const char *, size_t);
wrapper_result call_controller(dispatch_function *const *dispatch) {
  return (*dispatch)(0, 0, 0, 0);
}
"""
"""A wrapper function that calls the controller through the dispatch function in its arguments."""
FAULTS = {
    "a message has an impossible size",
    "a message has an unexpected opcode",
    "a message is too large",
    "a result belongs to no call",
    "the connection ended within a message",
}


class Controller:
    """A controller that a test plays.

    Attributes:
        process: the executor.
        connected: the connection to it.
        symbols: its bootstrap symbols.
    """

    def __init__(self, program: str) -> None:
        self.connected, theirs = socket.socketpair()
        self.connected.settimeout(SECONDS)
        self._messages = messages_of(self.connected)
        self._next = 0
        with theirs:
            self.process = subprocess.Popen(
                [program, f"socket:adopt={theirs.fileno()}"],
                pass_fds=(theirs.fileno(),),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **SANITIZERS},
            )
        self.symbols = SETUP.deserialize(self.receive().payload).bootstrap_symbols

    def receive(self) -> Message:
        """The next message; raises EOFError at the end."""
        return receive(self._messages)

    def message(self, service: Service[Any], payload: bytes) -> bytes:
        """A call of a service."""
        self._next += 1
        return encoded(OpCode.CALL_WRAPPER, self._next, self.symbols[service.name], payload)

    def arguments(self, service: Service[Any], *values: object) -> bytes:
        """The serialized arguments of a service."""
        first = [] if service.instance is None else [self.symbols[service.instance]]
        return service.signature.serialize_arguments(*first, *values)

    def call(self, service: Service[Any], *values: object) -> Any:  # noqa: ANN401 - the service's
        """Call a service, and return its result."""
        self.connected.sendall(self.message(service, self.arguments(service, *values)))
        return service.signature.deserialize_result(WrapperFunctionResult(self.receive().payload))

    def finish(self) -> tuple[int, str]:
        """Send no more, and return the executor's status and what it has written."""
        self.connected.shutdown(socket.SHUT_WR)
        begun = time.monotonic()
        _, errors = self.process.communicate(timeout=SECONDS)
        assert time.monotonic() - begun < SECONDS
        return self.process.returncode, errors


@contextmanager
def controller(program: str = PROGRAM) -> Iterator[Controller]:
    """A controller, and its executor until the end of the with statement."""
    played = Controller(program)
    try:
        yield played
    finally:
        played.connected.close()
        played.process.kill()
        played.process.communicate()


@cache
def sanitized() -> str:
    """The executor, built with AddressSanitizer and UndefinedBehaviorSanitizer."""
    directory = build.HERE / "executor"
    sources = [str(directory / f"{name}.c") for name in build.EXECUTOR_SOURCES]
    command = [
        str(require("gcc")), "-std=gnu11", "-D_GNU_SOURCE", "-O1", "-g",
        "-fvisibility=hidden", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
        '-DJITLINK_TRIPLE="x86_64-unknown-linux-gnu"', *sources, "-rdynamic", "-ldl",
        "-lpthread", *_newer_headers(),
    ]  # fmt: skip
    contents = [path.read_bytes() for path in sorted(build.HERE.rglob("*.[ch]"))]

    def make(place: Path) -> None:
        run([*command, "-o", place / "executor"])

    return str(cached("sanitized", [*command, *contents], make) / "executor")


def _newer_headers() -> list[str]:
    """Options for the kernel's headers that the pinned compiler has: those of Debian are older."""
    include = Path(str(importlib.resources.files("ziglang"))) / "lib" / "libc" / "include"
    names = ("x86-linux-any", "any-linux-any")
    return [word for name in names for word in ("-isystem", str(include / name))]


@pytest.fixture(name="program", params=["built", "sanitized"])
def _program(request: pytest.FixtureRequest) -> str:
    return PROGRAM if request.param == "built" else sanitized()


def conversation(played: Controller) -> list[bytes]:
    """Calls that an executor carries out, none of which needs an answer of another one."""
    return [
        played.message(JITLINK.open_dylib, played.arguments(JITLINK.open_dylib, "", 0)),
        played.message(JITLINK.memory.reserve, played.arguments(JITLINK.memory.reserve, 4 * PAGE)),
        played.message(
            JITLINK.memory.release, played.arguments(JITLINK.memory.release, [PAGE, 2 * PAGE])
        ),
    ]


def test_cut_at_every_byte() -> None:
    """The controller is gone after so many bytes."""
    with controller() as played:
        size = len(b"".join(conversation(played)))
    for cut in range(size + 1):
        with controller() as played:
            messages = conversation(played)
            ends = {0}
            for message in messages:
                ends.add(max(ends) + len(message))
            played.connected.sendall(b"".join(messages)[:cut])
            status, errors = played.finish()
            within = "jitlink-executor: the connection ended within a message\n"
            assert (status, errors) == ((0, "") if cut in ends else (1, within)), cut


def _faulty(messages: list[bytes], number: int) -> list[bytes]:
    """Messages with a fault in their framing; calls of an address that is none are left out."""
    chance = random.Random(number)
    place = chance.randrange(len(messages))
    message = messages[place]
    kind = chance.choice(("size", "size", "opcode", "sequence", "noise", "lost", "cut"))
    changed = message
    if kind == "size":
        changed = mutant(message, [Region(0, 8, 1)], number)
    elif kind == "opcode":
        changed = mutant(message, [Region(8, 1, 1)], number)
    elif kind == "sequence":
        changed = mutant(message, [Region(16, 8, 1)], number)
    elif kind == "noise":
        changed += encoded(chance.choice((0, 1, 2, 4, 255)), chance.getrandbits(64))
    elif kind == "lost":
        changed = b""
    else:
        changed = message[: chance.randrange(len(message))]
    return [*messages[:place], changed, *messages[place + 1 :]]


def _calls_only_services(stream: bytes, symbols: set[int]) -> bool:
    """Whether what is called are services, and with arguments of their own."""
    position = 0
    while len(stream) - position >= 32:
        size, opcode, _, tag = (
            int.from_bytes(stream[position + n : position + n + 8], "little")
            for n in range(0, 32, 8)
        )
        if opcode & 0xFF == OpCode.CALL_WRAPPER and tag not in symbols:
            return False
        if size < 32:
            return True
        position += size
    return True


def test_mutated_framing(program: str) -> None:
    statuses = {0: 0, 1: 0}
    for number in range(MUTANTS // 4):
        with controller(program) as played:
            stream = b"".join(_faulty(conversation(played), number))
            safe = {
                played.symbols[each.name]
                for each in (JITLINK.open_dylib, JITLINK.memory.reserve, JITLINK.memory.release)
            }
            if not _calls_only_services(stream, safe):
                continue
            played.connected.sendall(stream)
            status, errors = played.finish()
            assert status in (0, 1), (number, status, errors)
            statuses[status] += 1
            if status:
                last = errors.splitlines()[-1]
                assert last.removeprefix("jitlink-executor: ") in FAULTS, (number, errors)
    assert min(statuses.values()) > MUTANTS // 40


def _services(played: Controller) -> list[tuple[Service[Any], bytes]]:
    """Services whose arguments are data, and valid arguments."""
    base = played.call(JITLINK.memory.reserve, 16 * PAGE)
    place, name = played.call(JITLINK.shared_memory.reserve, 16 * PAGE)
    Path(f"/dev/shm{name}").unlink()
    handle = played.call(JITLINK.open_dylib, "", 0)
    segments = [
        SegmentFinalizeRequest(group, base + n * PAGE, 100, bytes(range(50)))
        for n, group in enumerate((1, 3, 5))
    ]
    shared = [SharedSegmentFinalizeRequest(1, place + n * PAGE, 100) for n in range(3)]
    names = [SymbolLookupElement(name, False) for name in ("malloc", "absent", "cos@GLIBC_2.2.5")]
    memory, mapped = JITLINK.memory, JITLINK.shared_memory
    assert memory.deinitialize is not None
    given: list[tuple[Service[Any], tuple[object, ...]]] = [
        (memory.reserve, (PAGE,)),
        (memory.initialize, (FinalizeRequest(segments, []),)),
        (memory.deinitialize, ([base, base + PAGE],)),
        (mapped.initialize, (place, SharedFinalizeRequest(shared, []))),
        (mapped.deinitialize, ([place, place + PAGE],)),
        (JITLINK.open_dylib, ("libm.so.6", 0)),
        (JITLINK.lookup, (handle, names)),
    ]
    return [(service, played.arguments(service, *values)) for service, values in given]


def _region(service: Service[Any], arguments: bytes) -> Region:
    """What of the arguments may be anything: a handle of a library is a pointer of the system's."""
    start = 8 if service is JITLINK.lookup else 0
    return Region(start, len(arguments) - start, 1)


def test_mutated_arguments(program: str) -> None:
    """Each call has a result, and the executor goes on."""
    chance = random.Random(1)
    for first in range(0, ARGUMENTS, AT_ONCE):
        with controller(program) as played:
            services = _services(played)
            for number in range(first, first + AT_ONCE):
                service, arguments = chance.choice(services)
                changed = mutant(arguments, [_region(service, arguments)], number)
                if chance.random() < 0.2:
                    changed = changed[: chance.randrange(len(changed) + 1)]
                sent = played.message(service, changed)
                played.connected.sendall(sent)
                result = played.receive()
                assert result.sequence == int.from_bytes(sent[16:24], "little")
            assert played.finish() == (0, ""), first


def _address_of(played: Controller, name: str, library: str | Path = "") -> int:
    handle = played.call(JITLINK.open_dylib, str(library), 0)
    (found,) = played.call(JITLINK.lookup, handle, [SymbolLookupElement(name, True)])
    return int(found.address)


def test_a_call_that_is_not_begun_at_the_end() -> None:
    """The executor does not outlive its controller, be the call noticed before or after the end."""
    with ExitStack() as stack:
        executors = [stack.enter_context(controller()) for _ in range(20)]
        for played in executors:
            endless = encoded(OpCode.CALL_WRAPPER, 99, _address_of(played, "pause"))
            played.connected.sendall(endless)
            played.connected.shutdown(socket.SHUT_WR)
        assert [played.process.wait(SECONDS) for played in executors] == [1] * len(executors)


def test_a_call_for_which_there_is_no_thread() -> None:
    """It fails: what runs on the main thread may wait for it."""
    with controller() as played:
        pause = _address_of(played, "pause")
        memory = Path(f"/proc/{played.process.pid}/statm").read_text().split()[0]
        limit = int(memory) * PAGE
        resource.prlimit(played.process.pid, resource.RLIMIT_AS, (limit, limit))
        # A few may get the stacks of threads that have ended.
        endless = [encoded(OpCode.CALL_WRAPPER, number, pause) for number in range(100, 120)]
        played.connected.sendall(b"".join(endless))
        result = played.receive()
        assert (result.opcode, result.payload) == (OpCode.RESULT, b"")
        assert result.sequence in range(101, 120)
        status, text = played.finish()
        message = "jitlink-executor: a call failed: no thread can be started for it"
        assert (status, set(text.splitlines())) == (1, {message})


def test_a_controller_that_reads_no_more(tmp_path: Path) -> None:
    """A call of it fails, and does not wait for the end of what it still sends."""
    source, library = tmp_path / "caller.c", tmp_path / "caller.so"
    source.write_text(CALLER)
    run([*zig_command("cc"), "-shared", "-fPIC", source, "-o", library])
    with controller() as played:
        dispatch = played.symbols["__llvm_orc_SimpleRemoteEPC_dispatch_fn"]
        caller = _address_of(played, "call_controller", library)
        played.connected.shutdown(socket.SHUT_RD)
        call = encoded(OpCode.CALL_WRAPPER, 99, caller, dispatch.to_bytes(8, "little"))
        played.connected.sendall(call)
        assert played.process.stderr is not None
        assert select.select([played.process.stderr], [], [], SECONDS)[0]
        expected = "jitlink-executor: a call failed: the connection has ended\n"
        assert played.process.stderr.readline() == expected
        assert played.finish() == (0, "")


def test_malformed_addresses_of_memory(program: str) -> None:
    """They are no success, which would say that something was freed."""
    memory, shared = JITLINK.memory, JITLINK.shared_memory
    with controller(program) as played:
        for service in (memory.deinitialize, memory.release, shared.deinitialize, shared.release):
            assert service is not None
            arguments = played.arguments(service, [PAGE])
            for size in (0, 8, 15, 16, 23):
                played.connected.sendall(played.message(service, arguments[:size]))
                assert b"malformed arguments" in played.receive().payload
        assert played.finish() == (0, "")


def test_requests_without_segments(program: str) -> None:
    """Their deallocate actions would belong to no memory."""
    shared = JITLINK.shared_memory
    with controller(program) as played:
        place, name = played.call(shared.reserve, PAGE)
        Path(f"/dev/shm{name}").unlink()
        for failure in (
            played.call(JITLINK.memory.initialize, FinalizeRequest([], [])),
            played.call(shared.initialize, place, SharedFinalizeRequest([], [])),
        ):
            assert "no segments" in failure.message


def test_an_action_that_releases_its_memory(program: str) -> None:
    """What follows it is undone."""
    memory = JITLINK.memory
    with controller(program) as played:
        place, kept = (played.call(memory.reserve, PAGE) for _ in range(2))
        release = WrapperFunctionCall(
            played.symbols[memory.release.name], played.arguments(memory.release, [place])
        )
        write = JITLINK.write_integers[4]
        undo = WrapperFunctionCall(played.symbols[write.name], played.arguments(write, [(kept, 7)]))
        segment = SegmentFinalizeRequest(3, place, PAGE, b"")
        request = FinalizeRequest([segment], [AllocActionCallPair(release, undo)])
        failure = played.call(memory.initialize, request)
        assert failure.message == "the memory was released meanwhile"
        assert played.call(JITLINK.read_integers[4], [kept]) == [7]
        assert played.finish() == (0, "")
