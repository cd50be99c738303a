"""Resolvers of ifuncs call what is linked meanwhile, and only once it can be called."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from jitlink import LLJIT, tasks
from jitlink.orc import ExecutorSymbolDef, JITDylib, JITDylibLookupFlags, JITSymbolFlags, LookupKind
from jitlink.orc.materialization import AbsoluteSymbols
from tests.toolchain import compile_c

RESOLVED = """
int choice(void);
static int one(void) { return 1; }
static int two(void) { return 2; }
static int (*resolver(void))(void) { return choice() == 2 ? two : one; }
int chosen(void) __attribute__((ifunc("resolver")));
"""
CALLEE = "extern int slow; int choice(void) { return 2; } int *address(void) { return &slow; }"
# Both have an ifunc whose resolver calls the other one.
LEFT = """
int right_number(void);
int left_number(void) { return 1; }
static int f(void) { return 3; }
static int (*resolver(void))(void) { (void)right_number; return f; }
int left(void) __attribute__((ifunc("resolver")));
int left_uses(void) { return right_number(); }
"""
RIGHT = LEFT.replace("left", "other").replace("right", "left").replace("other", "right")


class Slow:
    """A generator of a variable, which takes its time."""

    async def try_to_generate(
        self,
        kind: LookupKind,
        dylib: JITDylib,
        flags: JITDylibLookupFlags,
        names: Mapping[str, bool],
    ) -> None:
        """Define the variable after a while."""
        del kind, flags
        if "slow" in names:
            await tasks.sleep(0.2)
            place = ExecutorSymbolDef(0x1234, JITSymbolFlags.EXPORTED)
            dylib.add_unit(AbsoluteSymbols({"slow": place}))


def link_slowly() -> None:
    """Link the resolver's callee while the callee waits for a definition."""
    with LLJIT() as jit:
        callee = jit.create_jitdylib("callee")
        callee.add_generator(Slow())
        jit.main.add_to_link_order(callee)
        jit.add_object(compile_c(RESOLVED, "gcc", ("-O1", "-fPIC")))
        jit.add_object(compile_c(CALLEE, "gcc", ("-O1", "-fPIC")), dylib=callee)
        assert jit.lookup("chosen")() == 2


def link_in_a_circle() -> None:
    """Link two objects whose resolvers refer to each other."""
    with LLJIT() as jit:
        other = jit.create_jitdylib("other")
        jit.main.add_to_link_order(other)
        other.add_to_link_order(jit.main)
        jit.add_object(compile_c(LEFT, "gcc", ("-O0", "-fPIC")))
        jit.add_object(compile_c(RIGHT, "gcc", ("-O0", "-fPIC")), dylib=other)
        assert jit.lookup("left")() == 3
        assert jit.lookup("right_uses", dylib=other)() == 1


@pytest.mark.parametrize("function", ["link_slowly", "link_in_a_circle"])
def test_resolvers(function: str) -> None:
    """In a process of its own, which a call too early would end."""
    code = f"from tests.orc import test_ifunc_order as t; t.{function}()"
    root = Path(__file__).parents[2]
    words = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(words, cwd=root, timeout=60, check=False)
    assert done.returncode == 0
