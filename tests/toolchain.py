"""Tools and files of the system that tests use: compilers, other linkers, real static archives.

Inputs are compiled from sources at test time, by the pinned cross-compiler (the `ziglang` package)
or by Debian's gcc and clang. Each is compiled once: `.cache/objects` keeps it under a hash of its
source and command. Concurrent test runs may share the cache, because a complete directory is
renamed into place.

A peer is a program or archive that only some tests need. If it is missing, they are skipped, with
the name of its Debian package; with JITLINK_REQUIRE_PEERS=1 in the environment they fail.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NoReturn

import pytest

CompilerName = Literal["zig", "gcc", "clang"]

COMPILERS: tuple[CompilerName, ...] = ("zig", "gcc", "clang")
MACHINE = os.uname().machine
"""The architecture that tests run on, or that an emulator has for them."""
HOST_TARGET = f"{MACHINE}-linux-gnu"

NATIVE_PYTHON = os.environ.get("JITLINK_NATIVE_PYTHON", sys.executable)
"""An interpreter that has the pinned compiler, and runs without an emulator."""
IS_EMULATED = "JITLINK_NATIVE_PYTHON" in os.environ
"""Whether an emulator runs the tests, as `script/foreign-python` does; compilers run natively."""

# What takes the place of the machine's own programs in an emulator: those for its architecture.
_CROSS_PROGRAMS = {
    "gcc": f"{HOST_TARGET}-gcc-12",
    "g++": f"{HOST_TARGET}-g++-12",
    **{name: f"{HOST_TARGET}-{name}" for name in ("ar", "ld", "nm", "objcopy")},
}
# Programs that run code, or generate it for their own machine only.
_NATIVE_PROGRAMS = frozenset({
    "gdb", "gfortran-12", "go", "ldc2", "llvm-jitlink-22", "llvm-jitlink-executor-19",
    "llvm-jitlink-executor-22", "perl", "rustc", "valgrind",
})  # fmt: skip

# The archives of which every object is linked and compared, smallest first.
DEBIAN_ARCHIVES = (
    "libz.a",
    "libzstd.a",
    "liblua5.4.a",
    "libsqlite3.a",
    "libc.a",
    "libLLVMX86CodeGen.a",
)

# The same for other processors, by target, from cross-development packages.
CROSS_ARCHIVES = {
    "aarch64-linux-gnu": ("libgcc.a", "libm.a", "libstdc++.a", "libc.a"),
    "riscv64-linux-gnu": ("libgcc.a", "libm.a", "libstdc++.a", "libc.a"),
}

DEBIAN_PACKAGES = {
    "aarch64-linux-gnu-gcc-12": "gcc-12-aarch64-linux-gnu",
    "aarch64-linux-gnu-g++-12": "g++-12-aarch64-linux-gnu",
    "ar": "binutils",
    "aarch64-linux-gnu/libatomic.a": "libgcc-12-dev-arm64-cross",
    "aarch64-linux-gnu/libc.a": "libc6-dev-arm64-cross",
    "aarch64-linux-gnu/libgcc.a": "libgcc-12-dev-arm64-cross",
    "aarch64-linux-gnu/libgcc_eh.a": "libgcc-12-dev-arm64-cross",
    "aarch64-linux-gnu/libm.a": "libc6-dev-arm64-cross",
    "aarch64-linux-gnu/libstdc++.a": "libstdc++-12-dev-arm64-cross",
    "c++filt": "binutils",
    "clang-22": "clang-22",
    "gcc": "gcc",
    "g++": "g++",
    "gdb": "gdb",
    "dot": "graphviz",
    "gfortran-12": "gfortran-12",
    "ld": "binutils",
    "ld.lld-22": "lld-22",
    "llvm-config-22": "llvm-22",
    "llvm-dwarfdump-22": "llvm-22",
    "llvm-jitlink-22": "llvm-22",
    "llvm-jitlink-executor-19": "llvm-19",
    "llvm-jitlink-executor-22": "llvm-22",
    "llvm-mc-22": "llvm-22",
    "llvm-objcopy-22": "llvm-22",
    "llvm-profdata-22": "llvm-22",
    "nm": "binutils",
    "objcopy": "binutils",
    "llvm-readelf-22": "llvm-22",
    "llvm-readobj-22": "llvm-22",
    "llvm-symbolizer-22": "llvm-22",
    "mold": "mold",
    "openssl": "openssl",
    "perl": "perl",
    "qemu-aarch64": "qemu-user",
    "qemu-riscv64": "qemu-user",
    "qemu-x86_64": "qemu-user",
    "rustc": "rustc",
    "riscv64-linux-gnu-gcc-12": "gcc-12-riscv64-linux-gnu",
    "riscv64-linux-gnu/libc.a": "libc6-dev-riscv64-cross",
    "riscv64-linux-gnu/libgcc.a": "libgcc-12-dev-riscv64-cross",
    "riscv64-linux-gnu/libm.a": "libc6-dev-riscv64-cross",
    "riscv64-linux-gnu/libstdc++.a": "libstdc++-12-dev-riscv64-cross",
    "libc.a": "libc6-dev",
    "libgcc.a": "libgcc-12-dev",
    "libgcc_eh.a": "libgcc-12-dev",
    "libLLVMOrcJIT.a": "llvm-22-dev",
    "libgrpc++.a": "libgrpc++-dev",
    "libLLVMX86CodeGen.a": "llvm-22-dev",
    "go": "golang-go",
    "ldc2": "ldc",
    "libatomic.a": "libgcc-12-dev",
    "libclang_rt.profile-x86_64.a": "libclang-rt-22-dev",
    "libexpat.a": "libexpat1-dev",
    "libgcov.a": "libgcc-12-dev",
    "libblas.a": "libblas-dev",
    "libgc.a": "libgc-dev",
    "liblapack.a": "liblapack-dev",
    "libavcodec.a": "libavcodec-dev",
    "libavutil.a": "libavutil-dev",
    "libgfortran.a": "libgfortran-12-dev",
    "libgomp.a": "libgcc-12-dev",
    "libjemalloc.a": "libjemalloc-dev",
    "liborc_rt-x86_64.a": "libclang-rt-22-dev",
    "liblua5.4.a": "liblua5.4-dev",
    "libperl.a": "libperl-dev",
    "libphobos2-ldc.a": "ldc",
    "libdruntime-ldc.a": "ldc",
    "libpython3.11.a": "libpython3.11-dev",
    "libquadmath.a": "libgcc-12-dev",
    "libsqlite3.a": "libsqlite3-dev",
    "libswresample.a": "libswresample-dev",
    "libunwind.a": "libunwind-dev",
    "libunwind.so.1": "libunwind-16",
    "libstdc++.a": "libstdc++-12-dev",
    "libz.a": "zlib1g-dev",
    "libzstd.a": "libzstd-dev",
    "valgrind": "valgrind",
}

_LLVM_SUFFIX = "-22"
_LLVM_ROOT = Path("/usr/lib/llvm-22")
_LIBRARY_ROOT = Path("/usr/lib") / HOST_TARGET

_CACHE = Path(__file__).resolve().parent.parent / ".cache"
_OBJECTS = _CACHE / "objects"

_CXX_SUFFIXES = frozenset({".cc", ".cpp", ".cxx"})
_HEADER_SUFFIXES = frozenset({".h", ".hpp", ".inc"})


class ToolError(Exception):
    """A program ended with an error.

    Attributes:
        command: the program and its arguments.
        status: its exit status.
        output: what it wrote on standard error.
    """

    def __init__(self, command: Sequence[str], status: int, output: str) -> None:
        super().__init__(f"{' '.join(command)}: exit status {status}\n{output}")
        self.command = tuple(command)
        self.status = status
        self.output = output


def run(command: Sequence[str | Path], cwd: Path | None = None) -> str:
    """Run a program and return what it wrote on standard output.

    Raises:
        ToolError: its exit status is not 0.
    """
    words = [str(word) for word in command]
    environment = {
        **os.environ,
        "LC_ALL": "C.UTF-8",
        "ZIG_GLOBAL_CACHE_DIR": str(_CACHE / "zig"),
        "ZIG_LOCAL_CACHE_DIR": str(_CACHE / "zig"),
    }
    done = subprocess.run(
        words,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ToolError(words, done.returncode, done.stderr)
    return done.stdout


def find(peer: str) -> Path | None:
    """Return the path of a program, or of a library (a name with `.a` or `.so`).

    The name of an archive for another target starts with the target: `aarch64-linux-gnu/libc.a`.
    """
    if ".so" in peer:
        library = _LIBRARY_ROOT / peer
        return library if library.is_file() else None
    return _find_archive(peer) if peer.endswith(".a") else _find_program(peer)


def require(peer: str) -> Path:
    """Return the path of a peer; if it is missing, skip the test.

    With JITLINK_REQUIRE_PEERS=1 in the environment the test fails instead.
    """
    path = find(peer)
    if path is None:
        name = _CROSS_PROGRAMS.get(peer, peer) if IS_EMULATED else peer
        report_missing(name, DEBIAN_PACKAGES.get(name, "unknown"))
    return path


def report_missing(what: str, package: str | None = None) -> NoReturn:
    """Skip the test, because something is missing; or fail it, as `require`.

    Args:
        what: a part of a Debian package, or a property of the system.
        package: the package.
    """
    reason = f"{what} is missing" + (f"; Debian package {package}" if package else "")
    if os.environ.get("JITLINK_REQUIRE_PEERS") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@cache
def _find_program(name: str) -> Path | None:
    if IS_EMULATED:
        if name in _NATIVE_PROGRAMS:
            return None
        name = _CROSS_PROGRAMS.get(name, name)
    found = shutil.which(name)
    if found is None and name.endswith(_LLVM_SUFFIX):
        found = shutil.which(name.removesuffix(_LLVM_SUFFIX), path=str(_LLVM_ROOT / "bin"))
    return Path(found) if found else None


@cache
def _find_archive(name: str) -> Path | None:
    target, _, file = name.rpartition("/")
    candidates = _llvm_archive(file) if file.startswith("libLLVM") else []
    candidates = candidates or _compiler_archive(file, target)
    return next((path.resolve() for path in candidates if path.is_file()), None)


def _llvm_archive(name: str) -> list[Path]:
    config = _find_program("llvm-config-22")
    found = [Path(run([config, "--libdir"]).strip())] if config else []
    return [directory / name for directory in (*found, _LLVM_ROOT / "lib")]


def _compiler_archive(name: str, target: str) -> list[Path]:
    # A compiler that does not find the file prints its bare name.
    native = ["gcc"] if IS_EMULATED else ["gcc", "clang-22"]
    names = [cross_compiler(target)] if target else native
    compilers = map(_find_program, names)
    printed = (Path(run([path, f"-print-file-name={name}"]).strip()) for path in compilers if path)
    found = [path for path in printed if path.is_absolute()]
    return found if target else [*found, _LIBRARY_ROOT / name]


def cross_compiler(target: str) -> str:
    """Return the name of Debian's gcc for another target."""
    return f"{target}-gcc-12"


def zig_command(tool: str, target: str | None = None) -> list[str]:
    """Return the command of one tool of the pinned compiler: `cc`, `c++`, `ar`, `objcopy`, ...

    Without a target it compiles for this machine, and finds the libraries that it has.
    """
    words = [NATIVE_PYTHON, "-m", "ziglang", tool]
    if target is None and IS_EMULATED:
        target = HOST_TARGET
    return [*words, "-target", target] if target and tool in {"cc", "c++"} else words


def compile_c(
    source: Path | str,
    compiler: CompilerName = "zig",
    flags: Sequence[str] = (),
    *,
    suffix: str = ".c",
    target: str = HOST_TARGET,
) -> Path:
    """Compile one C, C++ or assembly source to a relocatable object, or find it in the cache.

    All tests share the object, so they must not modify it. Headers are looked up beside the source;
    their contents are part of the cache key. Other files in `flags` must not change.

    Args:
        source: a file, whose suffix determines the language, or a source text.
        compiler: "zig" is the pinned one; the others are peers.
        flags: appended to the defaults, which for zig are `-g0` (unless a `-g` option is given) and
            `-fno-sanitize=undefined`.
        suffix: suffix for a source text, which determines its language: `.c`, `.cpp`, `.s`, ...
        target: target triple of the compiler; for others than the host's, gcc compiles C only.

    Returns:
        The object; its source, which debug information refers to, is beside it.

    Raises:
        ToolError: the compiler refuses the source.
        ValueError: gcc is to compile C++ for another target.
    """
    if isinstance(source, Path):
        name, text, headers = source.name, source.read_bytes(), source.resolve().parent
        suffix = source.suffix
    else:
        name, text, headers = f"source{suffix}", source.encode(), None
    command = _compile_command(compiler, suffix, target) + _default_flags(compiler, flags)
    command += flags
    # The directory is part of the key, because debug information contains it.
    parts = [str(_OBJECTS), _identity(compiler), *command, name]
    key = _hash([*(part.encode() for part in parts), text, *_header_contents(headers)])
    place = _OBJECTS / key
    compiled = place / Path(name).with_suffix(".o").name
    if not compiled.exists():
        quoted = ["-iquote", str(headers)] if headers else []
        _compile_into(place, name, text, command + quoted)
    return compiled


def _compile_into(place: Path, name: str, text: bytes, command: Sequence[str]) -> None:
    _OBJECTS.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix="staging-", dir=_OBJECTS))
    try:
        (staging / name).write_bytes(text)
        moved = f"-ffile-prefix-map={staging}={place}"
        output = Path(name).with_suffix(".o").name
        run([*command, moved, "-c", name, "-o", output], cwd=staging)
        try:
            staging.rename(place)
        except OSError:
            # Another run was first: its directory is not empty, and has the same content.
            if not (place / output).exists():
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _compile_command(compiler: CompilerName, suffix: str, target: str) -> list[str]:
    is_cxx = suffix in _CXX_SUFFIXES
    if compiler == "zig":
        return zig_command("c++" if is_cxx else "cc", target)
    if compiler == "clang":
        return [str(require("clang-22")), f"--target={target}"]
    if target != HOST_TARGET:
        if is_cxx:
            raise ValueError(f"gcc compiles C++ for {HOST_TARGET} only, not for {target}")
        return [str(require(cross_compiler(target)))]
    return [str(require("g++" if is_cxx else "gcc"))]


def _default_flags(compiler: CompilerName, flags: Sequence[str]) -> list[str]:
    if compiler != "zig":
        return []
    # With zig, -g0 overrides a later -g.
    debug = [] if any(flag.startswith("-g") for flag in flags) else ["-g0"]
    return [*debug, "-fno-sanitize=undefined"]


@cache
def _identity(compiler: CompilerName) -> str:
    if compiler == "zig":
        version = "import importlib.metadata as m; print(m.version('ziglang'))"
        return f"ziglang {run([NATIVE_PYTHON, '-c', version]).strip()}"
    return run([require("gcc" if compiler == "gcc" else "clang-22"), "--version"])


def _header_contents(directory: Path | None) -> list[bytes]:
    if directory is None:
        return []
    headers = sorted(path for path in directory.iterdir() if path.suffix in _HEADER_SUFFIXES)
    return [part for path in headers for part in (path.name.encode(), path.read_bytes())]


def _hash(parts: Sequence[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        # The length makes the boundaries between parts unambiguous.
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:32]
