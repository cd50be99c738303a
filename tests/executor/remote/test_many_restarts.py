"""Many restarts: executors that are killed at any time, and what is left of them."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import jitlink
from jitlink.executor import ExecutorDisconnectedError
from jitlink.lljit import LLJIT
from tests.executor.remote.executors import Setting, started
from tests.executor.remote.resources import open_descriptors, shared_files
from tests.orc.test_restart import CRASH, OWN, STATE, c, crash, process_of

LONG = os.environ.get("JITLINK_LONG") == "1"
each_memory = pytest.mark.parametrize(
    "setting", [OWN, Setting("jitlink", "pipes", "generic")], ids=str
)


class Rounds:
    """Uses of an executor by several threads, again and again.

    Attributes:
        ended: set to end them.
        wrong: results that are not the expected ones, and unexpected errors.
        count: how many threads have ended.
    """

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.wrong: list[object] = []
        self.count = 0

    def repeat(self, use: Callable[[int], Iterator[tuple[int, int]]]) -> None:
        """Use the executor, which may end at any time."""
        number = 0
        while not self.ended.is_set():
            number += 1
            try:
                self.wrong.extend(pair for pair in use(number) if pair[0] != pair[1])
            except ExecutorDisconnectedError:
                continue
            except BaseException as error:  # noqa: BLE001 - the test fails with it
                self.wrong.append(error)
        self.count += 1


@each_memory
def test_killed_at_any_time(setting: Setting) -> None:
    kills = 200 if LONG else 15
    source = c("int f(int x) { return x * 3; } int g(int (*h)(int), int x) { return h(x) + 1; }")
    added = c("""
        static int is_open;
        __attribute__((constructor)) static void start(void) { is_open = 1; }
        int a(int x) { return is_open ? x * 5 : -1; }
    """)
    with (
        started(setting, on_crash="restart") as executor,
        jitlink.load(source, executor=executor) as lib,
        LLJIT(executor=executor) as jit,
    ):
        jit.add_object(added)
        jit.initialize()
        rounds = Rounds()

        def call(number: int) -> Iterator[tuple[int, int]]:
            yield lib.f(number), 3 * number
            yield lib.g(lib.f, number), 3 * number + 1

        def look_up(number: int) -> Iterator[tuple[int, int]]:
            yield jit.lookup("a")(number), 5 * number

        def link(number: int) -> Iterator[tuple[int, int]]:
            tracker = jit.create_resource_tracker()
            jit.add_object(c("int b(int x) { return x * 7; }"), tracker)
            try:
                yield jit.lookup("b")(number), 7 * number
            finally:
                jit.remove(tracker)

        uses = (call, call, look_up, link)
        threads = [threading.Thread(target=rounds.repeat, args=(use,)) for use in uses]
        for thread in threads:
            thread.start()
        for number in range(kills):
            time.sleep(0.02 + number % 7 * 0.01)
            with contextlib.suppress(ProcessLookupError):
                os.kill(process_of(executor), signal.SIGKILL)
        rounds.ended.set()
        for thread in threads:
            thread.join(60)
        assert not rounds.wrong
        assert rounds.count == len(threads)
        assert lib.f(2) == 6
        assert executor.generation > 1


class Usage:
    """What this process holds: counts, and bytes."""

    def __init__(self) -> None:
        self.descriptors = len(open_descriptors())
        self.threads = len(list(Path("/proc/self/task").iterdir()))
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
        self.processes = len(children.split())
        self.maps = len(Path("/proc/self/maps").read_text().splitlines())
        self.resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf(
            "SC_PAGESIZE"
        )


@pytest.mark.serial("counts threads, processes and descriptors")
@each_memory
def test_nothing_grows(setting: Setting) -> None:
    # Fewer would be within the bounds for mappings.
    rounds = 200 if LONG else 40
    with started(setting) as executor, LLJIT(executor=executor) as jit:
        for source in (STATE, CRASH):
            jit.add_object(c(source))
        jit.add_object(c("__attribute__((constructor)) static void f(void) {}"))
        jit.initialize()

        pids, others = set[int](), shared_files()

        def use() -> None:
            pids.add(process_of(executor))
            assert [jit.lookup("next")(), jit.lookup("next_own")()] == [41, 6]
            tracker = jit.create_resource_tracker()
            jit.add_object(c("int other(void) { return 1; }"), tracker)
            assert jit.lookup("other")() == 1
            jit.remove(tracker)
            crash(jit.lookup("crash"))
            jit.restart_executor()

        for _ in range(8):
            use()
        settled(jit)
        before = Usage()
        for _ in range(rounds):
            use()
        settled(jit)
        after = Usage()
        assert not any(shared_files(pid) - others for pid in pids)
        for name in ("descriptors", "threads", "processes"):
            assert getattr(after, name) <= getattr(before, name), name
        assert after.maps <= before.maps + 20
        # Allocators keep some of what was freed.
        assert after.resident < before.resident + (8 << 20)


def settled(jit: LLJIT) -> None:
    """Wait until threads of restarts have ended, and collect garbage."""
    jit.session.settle()
    gc.collect()
    time.sleep(0.5)
