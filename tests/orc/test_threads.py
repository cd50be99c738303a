"""Many threads that use one session at once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import pytest

from jitlink.errors import DuplicateDefinitionError, UndefinedSymbolError
from jitlink.orc import (
    ExecutionSession,
    FailedToMaterializeError,
    JITDylib,
    MaterializationResponsibility,
    SessionEndedError,
)
from jitlink.orc.errors import ResourceTrackerDefunctError
from jitlink.tasks import sleep
from tests.orc.units import IS_LONG, Generator, Together, Unit, settle, time_limit

pytestmark = pytest.mark.serial("many threads, with a time limit")

THREADS = 16
ROUNDS = 2000 if IS_LONG else 60


def run_threads(functions: Sequence[Callable[[], None]]) -> None:
    """Run functions at once, and raise what one of them raises."""
    errors: list[BaseException] = []

    def run(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [
        threading.Thread(target=run, args=(function,), daemon=True) for function in functions
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600 if IS_LONG else 60)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


class SlowUnit(Unit):
    """Lets other tasks run in between."""

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        for _ in range(len(self.symbols) + len(self.name) % 4):
            await sleep(0)
        await super().materialize(responsibility)


def test_everything_is_materialized_once() -> None:
    count = 300
    with time_limit(), ExecutionSession() as session:
        main = session.create_jitdylib("main")
        generator = Generator(" ".join(f"g{number}" for number in range(count)))
        main.add_generator(generator)
        units = []
        for number in range(count):
            needs = [f"f{(number * 7 + 1) % count}", f"g{number}"]
            kind = Together if number % 3 == 0 else SlowUnit
            units.append(kind([f"f{number}"], needs))
            main.define(units[-1])
        found: list[dict[str, int]] = [{} for _ in range(THREADS)]

        def look_up(number: int) -> None:
            order = list(range(count))
            random.Random(number).shuffle(order)
            for index in order:
                names = {f"f{index}": True, f"g{order[index]}": True, "never": False}
                for name, symbol in session.lookup(main, names).items():
                    assert found[number].setdefault(name, symbol.address) == symbol.address

        run_threads([partial(look_up, number) for number in range(THREADS)])
        assert len(found[0]) == 2 * count
        assert all(addresses == found[0] for addresses in found)
        for number, unit in enumerate(units):
            assert sum(f"f{number}" in names for names in unit.materialized) == 1
        assert len(main.symbols) == 2 * count
        assert not main.generator_locks


EXPECTED = (FailedToMaterializeError, UndefinedSymbolError)


def add_and_remove(main: JITDylib, number: int) -> None:
    """Define, look up and remove names that four threads share."""
    for round_ in range(ROUNDS):
        tracker = main.create_resource_tracker()
        error = ValueError() if (round_ + number) % 5 == 0 else None
        name = f"s{number % 4}_{round_ % 3}"
        try:
            main.define(SlowUnit([name], ["base", "flicker"], error=error), tracker)
        except DuplicateDefinitionError:
            main.define(SlowUnit([f"t{number}"], [name]), tracker)
            name = f"t{number}"
        with suppress(*EXPECTED):
            main.session.lookup(main, name)
        if round_ % 2:
            destination = main.create_resource_tracker()
            tracker.transfer_to(destination)
            tracker = destination
        tracker.remove()


def flicker(main: JITDylib) -> None:
    """Define and remove a symbol again and again."""
    for round_ in range(ROUNDS * 2):
        tracker = main.create_resource_tracker()
        main.define(SlowUnit("flicker", name="n" * (round_ % 4)), tracker)
        if round_ % 3:
            with suppress(*EXPECTED):
                main.session.lookup(main, "flicker")
        tracker.remove()


def test_adds_lookups_removals_and_failures_at_once() -> None:
    with time_limit(3600 if IS_LONG else 120), ExecutionSession() as session:
        main = session.create_jitdylib("main")
        main.define(Unit("base"))
        adders = [partial(add_and_remove, main, number) for number in range(THREADS)]
        run_threads([*adders, partial(flicker, main)])
        settle(session)
        assert list(main.symbols) == ["base"]
        assert list(main.trackers) == [main.default_tracker]
        assert not session.queries
        assert session.lookup(main, "base").keys() == {"base"}


def test_the_session_ends_while_threads_use_it() -> None:
    stopped = (SessionEndedError, ResourceTrackerDefunctError)
    for number in range(100 if IS_LONG else 10):
        with time_limit():
            session = ExecutionSession()
            main = session.create_jitdylib("main")

            def work(thread: int, main: JITDylib = main) -> None:
                try:
                    for number in range(100_000):
                        tracker = main.create_resource_tracker()
                        main.define(SlowUnit([f"f{thread}_{number}"]), tracker)
                        main.session.lookup(main, f"f{thread}_{number}")
                        tracker.remove()
                except stopped:
                    return
                raise AssertionError

            def end(session: ExecutionSession = session, delay: float = number / 500) -> None:
                time.sleep(delay)
                session.end()

            workers = [partial(work, number) for number in range(6)]
            run_threads([*workers, end, end])
            assert not main.symbols
