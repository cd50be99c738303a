"""The static TLS of libraries that could not be loaded; files that are malformed lead to none."""

import struct
from pathlib import Path

import pytest

from jitlink.errors import StaticTLSError
from jitlink.executor.library_tls import lack_of_static_tls
from jitlink.formats.elf_layout import Identity, identify
from jitlink.memory.tls import TLSRegistry
from jitlink.memory.tls_glibc import PROCESS_TLS
from tests.memory.graphs import drive
from tests.memory.test_tls import Recorder
from tests.toolchain import compile_c, require, run


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


class ModuleRecorder(Recorder):
    """Loads every TLS module, and records what for."""

    def __init__(self) -> None:
        super().__init__()
        self.identities: set[Identity] = set()

    async def load_tls_module(self, data: bytes) -> int:
        self.identities.add(identify(memoryview(data), "module"))
        return await super().load_tls_module(data)


@pytest.mark.parametrize("target", ["x86_64", "aarch64", "aarch64_be", "riscv64", "riscv32"])
def test_libraries_of_every_architecture(target: str, tmp_path: Path) -> None:
    path = tmp_path / "libx.so"
    source = "_Thread_local long x[100] __attribute__((aligned(128)));"
    compiled = compile_c(source, "clang", ("-fPIC",), target=f"{target}-linux-gnu")
    run([require("ld.lld-22"), "-shared", compiled, "-o", path])
    loader = ModuleRecorder()
    error = drive(lack_of_static_tls("liby.so", f"{path}: no room", TLSRegistry(loader)))
    assert isinstance(error, StaticTLSError)
    size = 800 if "32" not in target else 400
    assert (error.size, error.alignment) == (size, 128)
    # What measures the room is for the same architecture.
    library = identify(memoryview(path.read_bytes()), "library")
    assert loader.identities == {library}
