"""The static TLS of libraries that could not be loaded: files that are malformed lead to none."""

import struct
from pathlib import Path

import pytest

from jitlink.executor.library_tls import lack_of_static_tls
from jitlink.memory.tls_glibc import PROCESS_TLS
from tests.memory.graphs import drive


@pytest.mark.parametrize("start", [64, 1 << 20, (1 << 63) - 1, (1 << 64) - 1])
@pytest.mark.parametrize("size", [0, 56, 0xFFFF])
def test_program_headers_that_are_not_in_the_file(start: int, size: int, tmp_path: Path) -> None:
    path = tmp_path / "libx.so"
    path.write_bytes(struct.pack("<6s12xH12xQ14xHH6x", b"\x7fELF\2\1", 62, start, size, 0xFFFF))
    reason = f"{path}: cannot allocate memory in static TLS block"
    assert drive(lack_of_static_tls(str(path), reason, PROCESS_TLS)) is None


@pytest.mark.parametrize("reason", ["", "no path", "nowhere: cannot allocate memory"])
def test_reasons_without_a_path(reason: str) -> None:
    assert drive(lack_of_static_tls("libx.so", reason, PROCESS_TLS)) is None
