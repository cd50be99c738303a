"""Every name that a library of `PREFIXES` defines leads to it."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest

from jitlink.names.shared_libraries import PREFIXES
from tests.toolchain import require, run

# With two signs: the default version of the symbol, which linkers bind to.
_DEFAULT = re.compile(r" [TWVBDRu] (\w+)@@", re.ASCII)


def _file(soname: str) -> str:
    """The path that a library is loaded from."""
    ctypes.CDLL(soname)
    maps = Path("/proc/self/maps").read_text().splitlines()
    return next(line.split()[-1] for line in maps if soname.removesuffix(".1") in line)


@pytest.mark.parametrize("soname", PREFIXES)
def test_every_name_leads_to_its_library(soname: str) -> None:
    require("gcc")
    names = _DEFAULT.findall(run(["nm", "-D", "--defined-only", _file(soname)]))
    assert len(names) > 100
    assert [name for name in names if not name.startswith(PREFIXES[soname])] == []
