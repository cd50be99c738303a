"""Sessions: JITDylibs, the driver thread, errors that must not end it, and the end."""

from __future__ import annotations

import gc
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Mapping

import pytest

from jitlink.orc import (
    DynamicLibraryGenerator,
    ExecutionSession,
    ExecutorSymbolDef,
    JITDylib,
    JITDylibLookupFlags,
    MaterializationResponsibility,
    ResourceTrackerDefunctError,
    SessionEndedError,
    SessionError,
    SymbolState,
)
from jitlink.tasks import CancelledError, Event, sleep, wait_for_all
from tests.orc.test_tracker import Manager, resource_unit
from tests.orc.units import HIDDEN, WEAK, Generator, Pending, Unit, open_gates, settle, time_limit

pytestmark = pytest.mark.serial("counts threads")


def session_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "jitlink session"]


# JITDylibs


def test_jitdylibs_by_name(session: ExecutionSession, main: JITDylib) -> None:
    assert session.get_jitdylib_by_name("main") is main
    assert session.get_jitdylib_by_name("other") is None
    with pytest.raises(SessionError, match=r"^there is a JITDylib main already$"):
        session.create_jitdylib("main")
    session.remove_jitdylib(main)
    assert session.get_jitdylib_by_name("main") is None
    again = session.create_jitdylib("main")
    session.remove_jitdylib(main)
    assert session.get_jitdylib_by_name("main") is again


def test_removal_of_a_jitdylib(session: ExecutionSession, main: JITDylib) -> None:
    manager = Manager()
    session.register_resource_manager(manager)
    trackers = [main.default_tracker, *(main.create_resource_tracker() for _ in range(2))]
    for number, tracker in enumerate(trackers):
        main.define(resource_unit(manager, f"f{number}"), tracker)
    slow = Unit("slow", is_gated=True)
    main.define(slow)
    session.lookup(main, ["f0", "f1", "f2"])
    main.remove(["f1"])
    pending = Pending(session, main, "slow")
    manager.error = ValueError("release")
    with pytest.raises(ValueError, match="release") as caught:
        session.remove_jitdylib(main)
    assert caught.value.__notes__.count("release") == 2
    assert manager.log == [f"manager releases f{number}" for number in (2, 1, 0)]
    assert not main.symbols
    assert not main.trackers
    settle(session)
    assert isinstance(pending.error.__cause__, ResourceTrackerDefunctError)
    open_gates(session, slow)


def test_a_dump(session: ExecutionSession, main: JITDylib) -> None:
    other = session.create_jitdylib("other")
    other.add_to_link_order(main)
    main.add_generator(DynamicLibraryGenerator())
    slow = Unit("slow", is_gated=True)
    main.define(Unit({"ready": HIDDEN, "né\n": WEAK}, name="a.o"))
    main.define(Unit("bad", error=ValueError()))
    main.define(slow)
    main.define(Unit("pristine"))
    address = session.lookup(main, "ready")["ready"].address
    Pending(session, main, {"bad": False})
    pending = Pending(session, main, ["slow", "ready"])
    bad = session.run(lambda: main.symbols["bad"].addresses["bad"])
    second = session.run(lambda: main.symbols["né\n"].addresses["né\n"])
    assert session.dump().splitlines() == [
        "JITDylib main",
        "  link order: main (all symbols)",
        "  generators: DynamicLibraryGenerator",
        "  resource trackers in use: 1",
        "  symbols:",
        f"    {bad:#018x}  failed          bad       exported  [unit of bad]",
        f"    {second:#018x}  ready           né\\x0a    weak exported  [a.o]",
        "    -                   never searched  pristine  exported  [unit of pristine]",
        f"    {address:#018x}  ready           ready     -  [a.o]",
        "    -                   materializing   slow      exported  [unit of slow]",
        "",
        "JITDylib other",
        "  link order: other (all symbols), main (exported only)",
        "  resource trackers in use: 0",
        "  no symbols",
        "",
        "waiting lookups: 1",
        "  ready: slow in main",
    ]
    open_gates(session, slow)
    assert isinstance(pending.result, dict)


# The driver thread


def test_the_driver_thread_cannot_wait_for_itself(
    session: ExecutionSession, main: JITDylib
) -> None:
    main.define(Unit("a"))
    errors: list[str] = []

    calls: list[Callable[[], object]] = [
        lambda: session.lookup(main, "a"),
        main.default_tracker.remove,
        session.end,
    ]

    async def wait() -> Mapping[str, ExecutorSymbolDef]:
        for call in calls:
            try:
                call()
            except SessionError as error:
                errors.append(str(error))
        return await session.lookup_async(main, "a")

    assert session.wait(wait()).keys() == {"a"}
    assert errors == ["the driver thread cannot wait for itself; use the async form"] * 3
    assert session.run(lambda: session.run(threading.get_ident)) == threading.get_ident()


@pytest.mark.parametrize("error", [ValueError(), SystemExit(2), KeyboardInterrupt()])
def test_no_exception_ends_the_driver_thread(
    session: ExecutionSession, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise error

    async def fail_async() -> None:
        await sleep(0)
        raise error

    async def fail_alone() -> None:
        await wait_for_all([session.begin(fail_async())], 30)

    calls: list[Callable[[], None]] = [
        lambda: session.run(fail),
        lambda: session.wait(fail_async()),
    ]
    for call in calls:
        with pytest.raises(type(error)):
            call()
    session.wait(fail_alone())
    assert session.run(lambda: 5) == 5
    assert not caplog.records
    session.call_later(0, fail)
    while not caplog.records:
        time.sleep(0.001)
    assert [record.message for record in caplog.records] == ["a call of the session failed"]


def test_errors_that_no_caller_waits_for(
    session: ExecutionSession, caplog: pytest.LogCaptureFixture
) -> None:
    session.report_error(ValueError("logged"))
    reported: list[BaseException] = []
    session.error_handler = reported.append
    session.report_error(ValueError("reported"))
    session.error_handler = "".join  # type: ignore[assignment]
    session.report_error(ValueError("logged too"))
    assert [str(error) for error in reported] == ["reported"]
    assert [record.message for record in caplog.records][:2] == ["logged", "logged too"]
    assert len(caplog.records) == 3


def test_a_cancelled_lookup_waits_for_nothing(session: ExecutionSession, main: JITDylib) -> None:
    slow = Unit("slow", is_gated=True)
    main.define(slow)

    async def impatient() -> None:
        task = session.begin(session.lookup_async(main, "slow"))
        await sleep(0.01)
        assert len(session.queries) == 1
        task.cancel()
        await task

    with pytest.raises(SessionEndedError):
        session.wait(impatient())
    assert not session.queries
    assert not session.run(lambda: main.symbols["slow"].queries)
    open_gates(session, slow)
    assert session.lookup(main, "slow").keys() == {"slow"}


def test_delayed_calls(session: ExecutionSession) -> None:
    done = threading.Event()
    session.call_later(0.01, done.set)
    assert done.wait(30)


# The end


def test_lookups_fail_when_the_session_ends() -> None:
    class Deaf(Unit):
        async def materialize(
            self,
            responsibility: MaterializationResponsibility,  # noqa: ARG002
        ) -> None:
            await self.begin.wait()

    errors: list[BaseException] = []
    with time_limit():
        session = ExecutionSession()
        main = session.create_jitdylib("main")
        never = Event()
        main.add_generator(Generator("generated", never.wait))
        main.define(Unit("slow", is_gated=True))
        main.define(Unit("user", ["slow"]))
        main.define(Deaf("deaf", is_gated=True))

        def look_up(names: str) -> None:
            try:
                session.lookup(main, names)
            except BaseException as error:  # noqa: BLE001
                errors.append(error)

        names = ["slow", "user", "deaf", "generated"]
        threads = [threading.Thread(target=look_up, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 30
        while session.run(lambda: len(session.queries) + len(session.searches)) < 5:
            assert time.monotonic() < deadline
        session.end()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
    assert [type(error) for error in errors] == [SessionEndedError] * 4
    assert {str(error) for error in errors} == {"the session has ended"}
    assert not main.symbols
    session.end()


def test_operations_are_refused_after_the_end() -> None:
    with ExecutionSession() as session:
        main = session.create_jitdylib("main")
        main.define(Unit("a"))
        tracker = main.create_resource_tracker()
    uses: list[Callable[[], object]] = [
        lambda: session.lookup(main, "a"),
        lambda: session.lookup_flags(main, "a"),
        lambda: session.create_jitdylib("other"),
        lambda: session.get_jitdylib_by_name("main"),
        lambda: session.remove_jitdylib(main),
        lambda: session.call_later(1, threading.Event().set),
        lambda: main.define(Unit("b")),
        lambda: main.add_to_link_order(main),
        tracker.remove,
        main.clear,
        session.dump,
    ]
    for use in uses:
        with pytest.raises(SessionEndedError):
            use()
    assert not session_threads()


def test_dependants_are_removed_first_and_errors_do_not_stop_it() -> None:
    with time_limit():
        session = ExecutionSession()
        manager = Manager()
        session.register_resource_manager(manager)
        user, library, first = (session.create_jitdylib(n) for n in ("user", "library", "first"))
        user.add_to_link_order(library)
        library.add_to_link_order(first)
        first.add_to_link_order(library, JITDylibLookupFlags.MATCH_ALL_SYMBOLS)
        for dylib in (user, library, first):
            dylib.define(resource_unit(manager, f"in_{dylib.name}"))
            session.lookup(dylib, f"in_{dylib.name}")
        manager.error = ValueError("release")
        with pytest.raises(ValueError, match="release") as caught:
            session.end()
        assert len(caught.value.__notes__) == 2
        assert manager.log[0] == "manager releases in_user"
        assert len(manager.log) == 3
        assert not session_threads()


def test_units_that_cannot_be_stopped_are_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stubborn(Unit):
        async def materialize(
            self,
            responsibility: MaterializationResponsibility,  # noqa: ARG002
        ) -> None:
            while not self.begin.is_waiting:
                try:
                    await sleep(0.01)
                except CancelledError:
                    continue

    monkeypatch.setattr("jitlink.orc.session._GRACE", 0.01)
    monkeypatch.setattr("jitlink.orc.session._CANCEL_TIMEOUT", 0.05)
    monkeypatch.setattr("jitlink.orc.driver._CANCEL_TIMEOUT", 1.0)
    with time_limit():
        session = ExecutionSession()
        main = session.create_jitdylib("main")
        unit = Stubborn("a", name="stubborn")
        main.define(unit)
        Pending(session, main, "a")
        threading.Timer(0.3, setattr, (unit.begin, "is_waiting", True)).start()
        with pytest.raises(SessionError, match=r"^cannot be stopped: stubborn$"):
            session.end()
        assert not main.symbols
        assert not session_threads()


def test_two_threads_end_it_at_once() -> None:
    with time_limit():
        session = ExecutionSession()
        manager = Manager()
        session.register_resource_manager(manager)
        main = session.create_jitdylib("main")
        main.define(resource_unit(manager, "a"))
        session.lookup(main, "a")
        threads = [threading.Thread(target=session.end) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert manager.log == ["manager releases a"]


def test_a_dropped_session_stops_its_fallback_thread() -> None:
    session = ExecutionSession()
    main = session.create_jitdylib("main")
    main.define(Unit("a"))
    session.lookup(main, "a")
    assert not session_threads()
    session.call_later(0.01, lambda: None)
    settle(session)
    (thread,) = session_threads()
    watch = weakref.ref(session)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del session, main
        gc.collect()
    assert watch() is None
    assert [(warning.category, str(warning.message)) for warning in caught] == [
        (ResourceWarning, "a session was dropped without being ended")
    ]
    thread.join(30)
    assert not thread.is_alive()


def test_states_are_in_order() -> None:
    states = [state.name for state in sorted(SymbolState)]
    assert states == ["NEVER_SEARCHED", "MATERIALIZING", "RESOLVED", "EMITTED", "READY"]
