"""Direct calls: recorded, repointed while threads run them, removed with their code."""

import ctypes
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jitlink.arch.x86_64 import X86_64EdgeKind
from jitlink.errors import AllocationError
from jitlink.graph import MemProt
from jitlink.memory import mapping, patching
from jitlink.memory.mapping import PAGE_SIZE, mapped_ranges
from jitlink.orc import (
    AbsoluteSymbols,
    ExecutorSymbolDef,
    FailedToMaterializeError,
    JITSymbolFlags,
)
from jitlink.orc.call_sites import CallSite, CallSiteOutOfReachError, CallSiteRecorder
from tests.orc.sessions import StubSession, run_threads, stub_session

BODIES = "int old(void) { return 1; } int new(void) { return 2; } int other(void) { return 50; }"
CALLERS = """
    int old(void), other(void);
    int call(void) { return old() + 1; }
    int both(void) { return old() * 100 + old() + other(); }
    int tail(void) { return old(); }
    int many(int count) {
        for (int i = 0; i < count; i++) {
            int got = old();
            if (got != 1 && got != 2) return got;
        }
        return 0;
    }
    int (*pointer(void))(void) { return old; }
"""


@pytest.fixture
def session() -> Iterator[StubSession]:
    with stub_session() as session:
        yield session


@pytest.fixture
def recorder(session: StubSession) -> CallSiteRecorder:
    recorder = CallSiteRecorder(["old", "unused"])
    session.layer.add_plugin(recorder)
    session.add(session.main, BODIES)
    return recorder


def called_by(site: CallSite) -> int:
    """The target of a call."""
    return site.address + 4 + ctypes.c_int32.from_address(site.address).value


@pytest.mark.machine("x86_64")
def test_direct_calls_are_recorded_and_repointed(
    session: StubSession, recorder: CallSiteRecorder
) -> None:
    session.add(session.main, CALLERS)
    functions = [session.function(name) for name in ("call", "both", "tail")]
    assert [function() for function in functions] == [2, 151, 1]
    sites = recorder.sites("old")
    assert len(sites) == 5
    assert {site.kind for site in sites} == {X86_64EdgeKind.BRANCH_PCREL32}
    assert {called_by(site) for site in sites} == {session.address("old")}
    assert recorder.sites("unused") == []
    assert recorder.repoint("old", session.address("new")) == 5
    assert [function() for function in functions] == [3, 252, 2]
    assert recorder.sites("old") == sites
    assert session.function("pointer", ctypes.c_void_p)() == session.address("old")
    assert recorder.repoint("old", session.address("old")) == 5
    assert [function() for function in functions] == [2, 151, 1]


@pytest.mark.machine("x86_64")
def test_calls_that_are_relaxed_are_recorded(
    session: StubSession, recorder: CallSiteRecorder
) -> None:
    # Through the GOT, which is within reach: the jump also moves by a byte.
    source = "int old(void); int call(void) { return old() + 1; } int jump(void) { return old(); }"
    session.add(session.main, source, "-fno-plt")
    call, jump = session.function("call"), session.function("jump")
    assert (call(), jump()) == (2, 1)
    assert recorder.repoint("old", session.address("new")) == 2
    assert (call(), jump()) == (3, 2)
    opcodes = {ctypes.string_at(site.address - 1, 1) for site in recorder.sites("old")}
    assert opcodes == {b"\xe8", b"\xe9"}


@pytest.mark.machine("x86_64")
def test_calls_of_plt_stubs_for_distant_targets_are_recorded(
    session: StubSession, recorder: CallSiteRecorder
) -> None:
    place = mapping.reserve(PAGE_SIZE, 0x2000_0000)
    assert place is not None
    mapping.map_zeroed(place, PAGE_SIZE, PAGE_SIZE)
    mapping.view(place, 6)[:] = bytes.fromhex("b8 07000000 c3")  # mov $7, %eax; ret
    mapping.protect_written(place, PAGE_SIZE, MemProt.READ | MemProt.EXEC)
    symbol = ExecutorSymbolDef(place, JITSymbolFlags.EXPORTED | JITSymbolFlags.CALLABLE)
    session.main.define(AbsoluteSymbols({"unused": symbol}))
    session.add(session.main, "int unused(void); int call(void) { return unused() + 1; }")
    call = session.function("call")
    assert call() == 8
    (site,) = recorder.sites("unused")
    assert site.kind == X86_64EdgeKind.BRANCH_PCREL32_TO_PTR_JUMP_STUB_BYPASSABLE
    assert recorder.repoint("unused", session.address("new")) == 1
    assert call() == 3
    with pytest.raises(CallSiteOutOfReachError):
        recorder.repoint("unused", place)
    assert call() == 3
    mapping.release(place, PAGE_SIZE)


def test_calls_of_one_s_own_functions_are_recorded(
    session: StubSession, recorder: CallSiteRecorder
) -> None:
    source = (
        "volatile int zero; int old(int x) { return x + zero; }"
        "int twice(int x) { return old(old(x) + 1); }"
    )
    session.add(session.bodies, source, "-fno-inline")
    session.add(session.bodies, "int increment(int x) { return x + 1; }")
    twice = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(session.address("twice", session.bodies))
    assert twice(5) == 6
    assert len(recorder.sites("old")) == 2
    recorder.repoint("old", session.address("increment", session.bodies))
    assert twice(5) == 8


def test_calls_are_repointed_while_threads_run_them(
    session: StubSession, recorder: CallSiteRecorder
) -> None:
    session.add(session.main, CALLERS)
    many = session.function("many", ctypes.c_int, ctypes.c_int)
    new, old = session.address("new"), session.address("old")
    done = threading.Event()
    results: list[int] = []
    seen: list[int] = []

    def call() -> None:
        while not done.is_set():
            results.append(many(100_000))

    def repoint() -> None:
        tail = session.function("tail")
        for number in range(300):
            recorder.repoint("old", new if number % 2 else old)
            seen.append(tail())
        done.set()

    run_threads([call, call, repoint])
    assert len(results) > 2
    assert set(results) == {0}
    assert seen == [1, 2] * 150


@pytest.mark.machine("x86_64")
def test_a_call_may_cross_a_page_boundary(session: StubSession, recorder: CallSiteRecorder) -> None:
    session.add(session.main, Path(__file__).with_name("straddling.s"))
    function = session.function("straddling", ctypes.c_int, ctypes.c_int)
    (site,) = recorder.sites("old")
    assert site.address % PAGE_SIZE == PAGE_SIZE - 2
    new, old = session.address("new"), session.address("old")
    done = threading.Event()
    results: list[bool] = []

    def call() -> None:
        while not done.is_set():
            results.append(function(50_000) == 50_000)

    def repoint() -> None:
        for number in range(300):
            recorder.repoint("old", new if number % 2 else old)
        done.set()

    run_threads([call, call, repoint])
    assert set(results) == {True}
    assert called_by(site) == new


def test_pages_stay_executable_and_are_freed(
    session: StubSession, recorder: CallSiteRecorder
) -> None:
    used = [session.used_size]
    session.address("new")
    for _ in range(30):
        tracker = session.main.create_resource_tracker()
        session.add(session.main, CALLERS, tracker=tracker)
        call = session.function("call")
        (site, *_) = recorder.sites("old")
        recorder.repoint("old", session.address("new"))
        (where,) = [
            mapping for mapping in mapped_ranges() if mapping.start <= site.address < mapping.end
        ]
        assert where.permissions == "r-xp"
        assert call() == 3
        tracker.remove()
        assert recorder.sites("old") == []
        assert recorder.repoint("old", session.address("new")) == 0
        used.append(session.used_size)
    assert len(set(used[1:])) == 1


def test_sites_follow_their_tracker(session: StubSession, recorder: CallSiteRecorder) -> None:
    first, second = (session.main.create_resource_tracker() for _ in range(2))
    session.add(session.main, CALLERS, tracker=first)
    assert session.function("call")() == 2
    first.transfer_to(second)
    assert len(recorder.sites("old")) == 5
    session.add(session.main, "int old(void); int more(void) { return old() + 3; }")
    assert session.function("more")() == 4
    assert len(recorder.sites("old")) == 6
    second.remove()
    assert len(recorder.sites("old")) == 1
    assert recorder.repoint("old", session.address("new")) == 1
    assert session.function("more")() == 5


def test_links_that_fail_leave_no_sites(session: StubSession, recorder: CallSiteRecorder) -> None:
    class Failing(CallSiteRecorder):
        def notify_emitted(self, responsibility: object) -> None:
            raise LookupError(str(responsibility))

    failing = Failing(["old"])
    session.layer.add_plugin(failing)
    session.add(session.main, CALLERS)
    with pytest.raises(FailedToMaterializeError):
        session.address("call")
    assert not len(failing._links) + len(recorder._links)
    assert not recorder._resources.keys
    assert recorder.sites("old") == failing.sites("old") == []


@pytest.mark.machine("x86_64")
def test_a_target_out_of_reach_changes_nothing(
    session: StubSession, recorder: CallSiteRecorder
) -> None:
    session.add(session.main, CALLERS)
    call = session.function("call")
    sites = recorder.sites("old")
    target = sites[-1].address + (1 << 31) + 4
    with pytest.raises(CallSiteOutOfReachError) as caught:
        recorder.repoint("old", target)
    error = caught.value
    assert (error.name, error.target, error.count) == ("old", target, 5)
    assert error.site in {site.address for site in sites}
    assert str(error) == (
        f"the call of old at {error.site:#x} does not reach {target:#x} (nor do 4 more calls)"
    )
    # Only the last call reaches this, so nothing may be changed.
    with pytest.raises(CallSiteOutOfReachError) as caught:
        recorder.repoint("old", target - 1)
    assert caught.value.count == 4
    assert {called_by(site) for site in sites} == {session.address("old")}
    assert call() == 2


def test_calls_of_all_links_that_do_not_reach_are_counted(
    session: StubSession, recorder: CallSiteRecorder
) -> None:
    for name in ("first", "second"):
        session.add(session.main, f"int old(void); int {name}(void) {{ return old() + 1; }}")
        session.address(name)
    sites = recorder.sites("old")
    assert len(sites) == 2
    target = max(site.address for site in sites) + (1 << 31) + 4
    with pytest.raises(CallSiteOutOfReachError) as caught:
        recorder.repoint("old", target)
    assert caught.value.count == 2


def test_names_that_are_not_recorded_are_an_error(recorder: CallSiteRecorder) -> None:
    with pytest.raises(KeyError, match="other"):
        recorder.sites("other")
    with pytest.raises(KeyError, match="other"):
        recorder.repoint("other", 0)
    assert CallSiteRecorder(["old"]).repoint("old", 0) == 0


def test_no_copies_are_left_if_the_system_refuses(
    session: StubSession, recorder: CallSiteRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.add(session.main, CALLERS)
    call = session.function("call")
    before = len(mapped_ranges())
    monkeypatch.setattr(patching, "_mremap", lambda: lambda *arguments: -1)  # noqa: ARG005
    with pytest.raises(AllocationError, match="cannot replace code"):
        recorder.repoint("old", session.address("new"))
    assert abs(len(mapped_ranges()) - before) <= 1
    assert call() == 2
