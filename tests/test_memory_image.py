"""Memory images: firmware that is placed at the addresses of a board, read by other tools, and run.

The board's processor is Unicorn's, and its memory is what the file says: contents at their load
addresses. The program copies its data to RAM itself.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import unicorn
from unicorn import riscv_const

import jitlink
from jitlink import LLJIT, MemoryImage
from jitlink.errors import (
    AllocationError,
    ExecutorError,
    TLSError,
    UndefinedSymbolError,
    UnsupportedObjectError,
)
from jitlink.link import run_in_process
from jitlink.memory import MemoryRegion
from jitlink.memory_image import SymbolValue
from jitlink.targets.registry import all_targets
from tests.toolchain import compile_c, require, run

FLASH, RAM, UART = 0x2000_0000, 0x8000_0000, 0x1001_3000
START = """
extern unsigned char load_address[], __data_start[], _edata[], stack_top[];
void begin(void);
__attribute__((section(".text.start"), naked, used)) void _start(void) {
    __asm__ volatile("la sp, stack_top\\n j begin");
}
int main(void);
__attribute__((used, noreturn)) void begin(void) {
    volatile unsigned char *to = __data_start;
    for (const volatile unsigned char *from = load_address; to < _edata;)
        *to++ = *from++;
    main();
    for (;;)
        ;
}
"""
MAIN = """
static volatile unsigned *const uart = (unsigned *)0x10013000;
extern void (*__init_array_start[])(void), (*__init_array_end[])(void);
volatile int counter = 41;
int zeros[100];
static void print(const char *text) { while (*text) *uart = (unsigned)*text++; }
__attribute__((constructor)) static void prepare(void) { zeros[7] = counter + 1; }
int main(void) {
    for (void (**each)(void) = __init_array_start; each < __init_array_end; each++)
        (*each)();
    print(zeros[7] == 42 ? "forty-two" : "wrong");
    *uart = 0;
    return 0;
}
"""
FLAGS = (
    "-O2",
    "-mno-global-merge",
    "-ffreestanding",
    "-fno-sanitize=all",
    "-mcpu=generic_rv32+m+c",
)
TARGET = "riscv32-freestanding-none"
REGIONS = (
    MemoryRegion("reset", FLASH, 0x100, "rx", sections=[".text.start"]),
    MemoryRegion("flash", FLASH + 0x100, 0x8000, "rx"),
    MemoryRegion("ram", RAM, 0x4000, "rw", load_region="flash"),
)
SYMBOLS: dict[str, Any] = {
    "load_address": lambda placed: placed["ram"][0].load_address,
    "stack_top": RAM + 0x4000,
}


def board() -> MemoryImage:
    return MemoryImage("riscv32", REGIONS, symbols=SYMBOLS)


@pytest.fixture(scope="module")
def objects() -> list[Path]:
    return [compile_c(source, "zig", FLAGS, target=TARGET) for source in (START, MAIN)]


@pytest.fixture
def firmware(objects: list[Path]) -> Iterator[MemoryImage]:
    image = board()
    with jitlink.load(*objects, executor=image, roots=["_start"]):
        yield image


def stored(image: MemoryImage) -> dict[int, bytes]:
    """Contents by load address."""
    return {each.load_address: bytes(each.content) for each in image.segments if each.content}


def run_board(contents: dict[int, bytes], entry: int) -> str:
    """What a board prints with these contents of its flash."""
    processor = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV32)
    processor.mem_map(FLASH, 0x1_0000, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
    processor.mem_map(RAM, 0x4000, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)
    printed = []

    def write(_processor: unicorn.Uc, _offset: int, _size: int, value: int, _data: object) -> None:
        printed.append(value)
        if not value:
            processor.emu_stop()

    processor.mmio_map(UART, 0x1000, None, None, write, None)
    for address, content in contents.items():
        processor.mem_write(address, content)
    processor.reg_write(riscv_const.UC_RISCV_REG_PC, entry)
    processor.emu_start(entry, 0, count=100_000)
    return bytes(printed[:-1]).decode()


def test_firmware_runs(firmware: MemoryImage) -> None:
    entry = firmware.symbols()["_start"]
    assert entry == FLASH
    assert run_board(stored(firmware), entry) == "forty-two"


def test_placement(firmware: MemoryImage) -> None:
    placed = [(each.region.name, each.address, str(each.prot)) for each in firmware.segments]
    assert placed[0] == ("reset", FLASH, "R-X")
    assert placed[-1] == ("ram", RAM, "RW-")
    assert [name for name, *_ in placed[1:-1]] == ["flash"] * (len(placed) - 2)
    data = firmware.segments[-1]
    assert (len(data.content), data.size) == (8, 8 + 400)
    assert FLASH < data.load_address < FLASH + 0x8100
    assert {"_start", "begin", "main", "counter", "prepare"} <= firmware.symbols().keys()


@pytest.mark.parametrize(("name", "format_name"), [("a.hex", "ihex"), ("a.srec", "srec")])
def test_records(firmware: MemoryImage, tmp_path: Path, name: str, format_name: str) -> None:
    """Binutils read the same contents from records."""
    path = tmp_path / name
    firmware.write(path, entry="_start")
    words = [str(require("objcopy")), "-I", format_name, "-O", "binary", "--gap-fill", "0xff"]
    run([*words, str(path), str(tmp_path / "flat")])
    assert (tmp_path / "flat").read_bytes() == firmware.raw()
    last = path.read_text().splitlines()[-2 if format_name == "ihex" else -1]
    assert "20000000" in last  # the entry point


def test_raw(firmware: MemoryImage, tmp_path: Path) -> None:
    firmware.write(tmp_path / "flash.bin", region="flash")
    content = (tmp_path / "flash.bin").read_bytes()
    expected = {k: v for k, v in stored(firmware).items() if k != FLASH}
    parts = {k: content[k - FLASH - 0x100 :][: len(v)] for k, v in expected.items()}
    assert parts == expected
    # Data is stored in flash, and RAM has nothing of its own.
    assert firmware.raw("ram") == b""
    assert firmware.raw("reset") == stored(firmware)[FLASH]


def test_raw_contents_that_are_far_apart(objects: list[Path]) -> None:
    regions = [*REGIONS[:2], MemoryRegion("ram", RAM, 0x4000, "rw")]
    image = MemoryImage("riscv32", regions, symbols=SYMBOLS)
    with jitlink.load(*objects, executor=image):
        with pytest.raises(
            ExecutorError, match=r"between 0x20000000 and 0x80000008, .* each region"
        ):
            image.raw()
        assert (41).to_bytes(4, "little") in image.raw("ram")


def test_executables(firmware: MemoryImage, tmp_path: Path) -> None:
    path = tmp_path / "firmware.elf"
    firmware.write(path, entry="_start")
    printed = run([require("llvm-readelf-22"), "-hlsW", path])
    assert "EXEC (Executable file)" in printed
    assert "Machine:                           RISC-V" in printed
    assert "Flags:                             0x1, RVC" in printed
    assert f"Entry point address:               {FLASH:#x}" in printed
    rows = [line.split() for line in printed.splitlines() if line.strip().startswith("LOAD")]
    loads = [[int(word, 16) for word in row[2:6]] for row in rows]
    assert loads == [
        [each.address, each.load_address, len(each.content), each.size]
        for each in firmware.segments
    ]
    (main,) = (line.split() for line in printed.splitlines() if line.endswith(" main"))
    assert int(main[1], 16) == firmware.symbols()["main"]
    assert main[3:5] == ["FUNC", "GLOBAL"]
    (prepare,) = (line.split() for line in printed.splitlines() if line.endswith(" prepare"))
    assert prepare[3:5] == ["FUNC", "LOCAL"]
    # What a programmer would put into flash is what was placed.
    words = [str(require("llvm-objcopy-22")), "-O", "binary", "--gap-fill=0xff"]
    run([*words, str(path), str(tmp_path / "flat")])
    assert (tmp_path / "flat").read_bytes() == firmware.raw()
    debugger = [str(require("gdb")), "-nx", "-batch", "-ex", "info symbol main", str(path)]
    assert "main in section .flash" in run(debugger)


def test_every_target_is_written(tmp_path: Path) -> None:
    names = [target.triple.partition("-")[0] for target in all_targets()]
    assert {"x86_64", "aarch64", "aarch64_be", "riscv32", "riscv64"} <= set(names)
    for name in names:
        source = "int values[] = {1, 2, 3}; int f(int n) { return values[n]; }"
        compiled = compile_c(source, "zig", ("-O1", "-ffreestanding"), target=f"{name}-linux-musl")
        image = MemoryImage(name, address=0x40_0000)
        with jitlink.load(compiled, executor=image) as library:
            path = tmp_path / f"{name}.elf"
            image.write(path, entry="f")
            printed = run([require("llvm-readelf-22"), "-hs", path])
            assert f"0x{library.exports['f']:x}" in printed.partition("Start of program")[0]
            assert library.exports["values"] == image.symbols()["values"]


def test_sessions_link_one_object_after_another(objects: list[Path]) -> None:
    image = board()
    with LLJIT(executor=image) as jit:
        tracker = jit.create_resource_tracker()
        for path in objects:
            jit.add_object(path, tracker)
        assert jit.lookup("_start") == FLASH
        size = sum(each.size for each in image.segments)
        tracker.remove()
        assert image.segments == []
        for path in objects:
            jit.add_object(path)
        jit.lookup("_start")
        assert sum(each.size for each in image.segments) == size
        assert run_board(stored(image), FLASH) == "forty-two"


def test_contents_may_be_changed(firmware: MemoryImage) -> None:
    counter, zeros = firmware.symbols()["counter"], firmware.symbols()["zeros"]
    assert run_in_process(firmware.read_memory(counter, 4)) == (41).to_bytes(4, "little")
    run_in_process(firmware.write_words([(counter, 40)]))
    assert run_board(stored(firmware), FLASH) == "wrong"
    assert run_in_process(firmware.read_memory(zeros, 8)) == bytes(8)
    with pytest.raises(ExecutorError, match="only zeros"):
        run_in_process(firmware.write_memory(zeros, b"1"))
    with pytest.raises(ExecutorError, match="nothing has been placed at 0x1234, 0x4 bytes"):
        run_in_process(firmware.read_memory(0x1234, 4))


def test_what_has_no_definition_is_refused(objects: list[Path]) -> None:
    image = MemoryImage("riscv32", REGIONS)
    with pytest.raises(UndefinedSymbolError) as error:
        jitlink.load(*objects, executor=image)
    assert set(error.value.names) == {"load_address", "stack_top"}
    assert image.segments == []


def test_nothing_runs(firmware: MemoryImage, objects: list[Path]) -> None:
    library = jitlink.load(*objects, executor=board())
    with library, pytest.raises(ExecutorError, match="cannot be called from here"):
        library.main()
    with pytest.raises(ExecutorError, match="a memory image of riscv32-unknown-none runs no code"):
        run_in_process(firmware.run_as_main(FLASH, []))
    with pytest.raises(ExecutorError, match=r"cannot load libc\.so: a memory image has no shared"):
        run_in_process(firmware.load_dylib("libc.so"))


VARIABLE = "__thread int x; int *f(void) { return &x; }"
IFUNC = """
static int g(void) { return 1; }
static int (*choose(void))(void) { return g; }
int h(void) __attribute__((ifunc("choose")));
int f(void) { return h(); }
"""


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (VARIABLE, TLSError, "no thread-local storage"),
        (IFUNC, AllocationError, "nothing runs in a memory image"),
    ],
)
def test_what_needs_a_system_is_refused(source: str, error: type[Exception], message: str) -> None:
    compiled = compile_c(source, "zig", ("-O1", "-fPIC"), target="aarch64-linux-gnu")
    image = MemoryImage("aarch64")
    with pytest.raises(error, match=message):
        jitlink.load(compiled, executor=image)
    assert image.segments == []


def test_code_of_another_architecture_is_refused(objects: list[Path]) -> None:
    with pytest.raises(UnsupportedObjectError, match="riscv32"):
        jitlink.load(*objects, executor=MemoryImage("riscv64"))


def test_arguments() -> None:
    with pytest.raises(UnsupportedObjectError, match="no target for triple z80"):
        MemoryImage("z80")
    with pytest.raises(ValueError, match="regions have addresses of their own"):
        MemoryImage("riscv32", REGIONS, address=5)
    far = MemoryRegion("far", 1 << 31, (1 << 31) + 1)
    with pytest.raises(ValueError, match=r"region far ends at 0x100000001, above .* of 32 bits"):
        MemoryImage("riscv32", [far])
    with pytest.raises(ValueError, match="region memory of 0x0 bytes at 0x100000000"):
        MemoryImage("riscv32", address=1 << 32)


def test_files_that_cannot_be_written(
    firmware: MemoryImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"ends with none of \.hex, .*name a format"):
        firmware.write(tmp_path / "firmware")
    with pytest.raises(UndefinedSymbolError, match="begining"):
        firmware.write(tmp_path / "a.elf", entry="begining")
    with pytest.raises(ValueError, match="no region rom; the regions are reset, flash, ram"):
        firmware.write(tmp_path / "a.bin", region="rom")
    monkeypatch.setitem(sys.modules, "bincopy", None)
    with pytest.raises(ExecutorError, match=r"pip install 'jitlink\[firmware\]'"):
        firmware.write(tmp_path / "a.hex")
    assert list(tmp_path.iterdir()) == []


def test_records_have_addresses_of_32_bits() -> None:
    compiled = compile_c("int f(void) { return 1; }", "zig", ("-O1",), target="aarch64-linux-gnu")
    image = MemoryImage("aarch64", address=(1 << 32) - 4)
    with jitlink.load(compiled, executor=image):
        with pytest.raises(
            ExecutorError, match=r"region memory end at 0x1000000\w\w, and the format"
        ):
            image.ihex()
        assert image.elf()[:4] == b"\x7fELF"


@pytest.mark.parametrize("value", [-1, 1 << 32, lambda _placed: 1 << 32])
def test_addresses_are_those_of_the_machine(value: SymbolValue, objects: list[Path]) -> None:
    image = MemoryImage("riscv32", REGIONS, symbols={**SYMBOLS, "stack_top": value})
    with pytest.raises(ValueError, match=r"stack_top at .* outside the addresses of the machine"):
        jitlink.load(*objects, executor=image)
    assert image.segments == []


def test_an_entry_point_is_an_address(firmware: MemoryImage) -> None:
    for write in (firmware.elf, firmware.ihex):
        with pytest.raises(ValueError, match="the entry point at 0x100000000 is outside"):
            write(1 << 32)
    assert firmware.elf(FLASH) == firmware.elf("_start")


def test_any_name_of_a_region_is_one_of_a_section(objects: list[Path], tmp_path: Path) -> None:
    names = {"reset": "shstrtab", "flash": "symtab", "ram": "strtab"}
    regions = [
        MemoryRegion(names[each.name], each.start, each.size, each.access, each.sections)
        for each in REGIONS
    ]
    symbols = {"stack_top": RAM, "load_address": 0}
    image = MemoryImage("riscv32", regions, symbols=symbols)
    with jitlink.load(*objects, executor=image):
        (tmp_path / "a.elf").write_bytes(image.elf())
        printed = run([require("llvm-readelf-22"), "-S", "-s", tmp_path / "a.elf"])
        assert re.search(r" \.shstrtab +PROGBITS +20000000", printed)
        assert re.search(r" \.shstrtab +STRTAB +00000000", printed)
        assert printed.rstrip().splitlines()[-1].split()[-1] in image.symbols()


def test_images_are_imported_without_their_packages() -> None:
    code = "import sys, jitlink; jitlink.MemoryImage; sys.exit('bincopy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
