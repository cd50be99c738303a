"""What a program, and the libraries that it loads, see of the program: as natively."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.runtime_programs.building import link_native
from tests.tool.command import compile_to, error, spawn
from tests.toolchain import compile_c, require, run, zig_command

QUERIES = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
int data = 7, zeros[5000];
const char constants[] = "constants";
static int local(void) { return 1; }
__attribute__((visibility("hidden"))) int hidden(void) { return local(); }
static int visit(struct dl_phdr_info *image, size_t size, void *address) {
  (void)size;
  for (int row = 0; row < image->dlpi_phnum; ++row) {
    const ElfW(Phdr) *header = &image->dlpi_phdr[row];
    ElfW(Addr) start = image->dlpi_addr + header->p_vaddr;
    if (header->p_type == PT_LOAD && (ElfW(Addr))address - start < header->p_memsz) {
      printf("flags %x tls %d name %d\\n", header->p_flags, (int)image->dlpi_tls_modid,
             !*image->dlpi_name || !strcmp(image->dlpi_name, "the program"));
    }
  }
  return 0;
}
int main(void) {
  const void *addresses[] = {main, &data, zeros, zeros + 4999, constants, local, hidden};
  void *base = 0;
  for (unsigned each = 0; each < sizeof addresses / sizeof *addresses; ++each) {
    Dl_info info;
    dl_iterate_phdr(visit, (void *)addresses[each]);
    int found = dladdr(addresses[each], &info);
    printf("%d %s %s %d %d\\n", found, info.dli_fname, info.dli_sname ? info.dli_sname : "-",
           info.dli_saddr == addresses[each], !base || base == info.dli_fbase);
    base = info.dli_fbase;
  }
  struct link_map *map = 0;
  Dl_info info;
  printf("%d\\n", dladdr1(main, &info, (void **)&map, RTLD_DL_LINKMAP) && map && map->l_ld);
  return 0;
}
"""

HOST = """
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int variable = 5;
__thread int thread_local[3] = {7, 8, 9};
int function(void) { return 10 + variable; }
/* The plug-in, and the program of this process, define these too. */
int both(void) { return 1; }
int Py_IsInitialized(void) { return 1234; }
static char pool[1 << 16];
static size_t used;
void *malloc(size_t size) {
  void *result = pool + used;
  used += (size + 15) & ~15ul;
  return used <= sizeof pool ? result : 0;
}
void free(void *memory) { (void)memory; }
void *calloc(size_t count, size_t size) { return malloc(count * size); }
void *realloc(void *old, size_t size) {
  void *result = malloc(size);
  return old ? memcpy(result, old, size) : result;
}
int is_mine(void *memory) { return (char *)memory >= pool && (char *)memory < pool + used; }
int main(int count, char **words) {
  setvbuf(stdout, 0, _IONBF, 0);
  for (int each = 1; each < count; ++each) {
    void *handle = dlopen(words[each], each % 2 ? RTLD_NOW : RTLD_LAZY);
    if (!handle) {
      printf("%s\\n", dlerror());
      continue;
    }
    void (*plug)(void) = (void (*)(void))dlsym(handle, "plug");
    if (plug)
      plug();
    printf("again %d\\n", dlopen(words[each], RTLD_NOW | RTLD_NOLOAD) == handle);
    printf("closed %d %d\\n", dlclose(handle), dlclose(handle));
  }
  return 0;
}
"""

PLUGIN = """
#include <stdio.h>
#include <stdlib.h>
extern int variable;
extern __thread int thread_local[3];
int function(void), Py_IsInitialized(void), is_mine(void *);
int both(void) { return 2; }
int calls;
#ifdef MISSING
void missing(void);
void call_missing(void) { missing(); }
#endif
void plug(void) {
  void *memory = malloc(10);
  printf("%d %d %d %d %d %d\\n", function(), ++variable, both(), Py_IsInitialized(),
         is_mine(memory), ++calls);
  printf("thread-local %d\\n", ++thread_local[1]);
}
__attribute__((constructor)) static void begin(void) { printf("begin %d\\n", function()); }
__attribute__((destructor)) static void end(void) { printf("end %d\\n", function()); }
"""


def native(program: Path, *words: str | Path) -> tuple[int, str, str]:
    """Run a program under the name that the linked one is given."""
    done = subprocess.run(
        ["the program", *map(str, words)],
        executable=program,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def linked(
    inputs: Sequence[Path], words: Sequence[str | Path] = (), options: Sequence[str] = ()
) -> tuple[int, str, str]:
    return spawn(*options, *inputs, "-args", "the program", *words)


@pytest.mark.parametrize("rdynamic", [True, False])
@pytest.mark.parametrize("flags", [("-fPIC",), ("-fno-pic", "-mcmodel=small")], ids="ps")
def test_the_queries_of_a_program(flags: tuple[str, ...], rdynamic: bool) -> None:
    program = compile_c(QUERIES, "gcc", ("-O0", *flags))
    words = ["-rdynamic"] if rdynamic else []
    if "-fno-pic" in flags:
        words.append("-no-pie")
    built = link_native("queries.c", [program], *words, "-ldl")
    expected = native(built)
    assert expected[1].count("1 the program") == 7
    assert ("main" in expected[1]) == rdynamic
    assert linked([program], options=["-rdynamic"] if rdynamic else []) == expected


def plugin(directory: Path, *flags: str) -> Path:
    path = directory / "plugin.so"
    compiled = compile_c(PLUGIN, "zig", ("-fPIC", *flags))
    run([*zig_command("cc"), "-shared", "-Wl,-z,lazy", compiled, "-o", path])
    return path


def test_plugins_call_the_program(tmp_path: Path) -> None:
    program = compile_c(HOST, "gcc", ("-O1", "-fPIC", "-fno-builtin"))
    built = link_native("host.c", [program], "-rdynamic", "-ldl")
    path = plugin(tmp_path)
    words: list[str | Path] = [path, path, path, tmp_path / "missing.so", "libm.so.6", "libz.so.1"]
    expected = native(built, *words)
    # Closed and loaded anew each time; the program's functions precede all others.
    assert expected[1].startswith("begin 15\n15 6 1 1234 1 1\nthread-local 9\nagain 1\nend 16\n")
    assert "thread-local 11" in expected[1]
    assert "end 18" in expected[1]
    assert "missing.so: cannot open shared object file" in expected[1]
    assert linked([program], words, ["-rdynamic"]) == expected
    # Without the option they do not see it.
    hidden = link_native("host.c", [program], "-ldl")
    expected = native(hidden, *words)
    assert expected[1].count("undefined symbol: ") == 3
    assert linked([program], words) == expected


def test_plugins_whose_functions_are_bound_when_they_are_called(tmp_path: Path) -> None:
    program = compile_c(HOST, "gcc", ("-O1", "-fPIC", "-fno-builtin"))
    built = link_native("host.c", [program], "-rdynamic", "-ldl")
    path = plugin(tmp_path, "-DMISSING")
    # The first is bound at once, the second is not.
    expected = native(built, path, path)
    assert "undefined symbol: missing" in expected[1]
    assert "15 6 1 1234 1 1" in expected[1]
    actual = linked([program], [path, path], ["-rdynamic"])
    # It stays loaded until the process ends, because its functions are still to be bound.
    closed = "closed 0 0\n"
    begin = expected[1].index("end")
    assert actual[1].startswith(expected[1][:begin] + closed)
    assert actual[0] == expected[0]


def test_an_initialiser_opens_a_plugin(tmp_path: Path) -> None:
    source = f"""
    #include <dlfcn.h>
    #include <stdio.h>
    int variable = 5;
    __thread int thread_local[3];
    int function(void) {{ return 1; }}
    int is_mine(void *memory) {{ return !memory; }}
    __attribute__((constructor)) static void begin(void) {{
      void *handle = dlopen("{plugin(tmp_path)}", RTLD_NOW);
      if (handle) ((void (*)(void))dlsym(handle, "plug"))(); else puts(dlerror());
      fflush(stdout);
    }}
    int main(void) {{ return 0; }}
    """
    program = compile_to(tmp_path / "program.o", source, "zig", "-fPIC")
    status, output, errors = spawn("-rdynamic", program)
    assert (status, errors) == (0, "")
    assert output.startswith("begin 1\n1 6 2 ")


def test_the_name_of_an_image_is_that_of_the_program(tmp_path: Path) -> None:
    source = """
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <stdio.h>
    int main(void) { Dl_info info; return !dladdr(main, &info) || puts(info.dli_fname) < 0; }
    """
    program = compile_to(tmp_path / "program.o", source, "zig", "-fPIC")
    assert spawn(program).out == f"{program}\n"
    assert spawn(program, "-args", "a name", "word").out == "a name\n"
    assert spawn(program, "-args", "").out == f"{program}\n"


def test_a_symbol_file(tmp_path: Path) -> None:
    source = """
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <link.h>
    #include <stdio.h>
    static char *place;
    __attribute__((noinline)) static int local(void) { return puts(place); }
    int variable = 5;
    __thread int thread_local = 6;
    __attribute__((constructor)) static void begin(void) { place = "place"; }
    int main(void) {
      struct link_map *map;
      Dl_info info;
      if (!dladdr1(main, &info, (void **)&map, RTLD_DL_LINKMAP)) return 1;
      char *base = (char *)map->l_addr;
      printf("%s\\n%lx %lx %lx\\n", info.dli_fname, (char *)local - base,
             (char *)main - base, (char *)&variable - base);
      return local() + thread_local == 0;
    }
    """
    program = compile_to(tmp_path / "program.o", source, "gcc", "-fPIC")
    path = tmp_path / "symbols"
    done = spawn("-symbol-file", path, program)
    name, addresses, _ = done.out.splitlines()
    assert name == str(path)
    printed = run([require("nm"), path])
    words = [row.split() for row in printed.splitlines()]
    rows = {row[-1]: row[0] for row in words}
    found = [int(rows[symbol], 16) for symbol in ("local", "main", "variable")]
    assert found == [int(address, 16) for address in addresses.split()]
    assert "thread_local" not in rows
    sizes = run([require("llvm-readelf-22"), "-sW", path])
    assert re.search(r" 4 OBJECT +GLOBAL DEFAULT +1 variable", sizes)
    assert re.search(r" FUNC +LOCAL +DEFAULT +1 local", sizes)


def test_symbol_files_that_cannot_be(tmp_path: Path) -> None:
    program = compile_to(tmp_path / "program.o", "int main(void) { return 0; }", "zig", "-fPIC")
    path = tmp_path / "missing" / "symbols"
    done = spawn("-symbol-file", path, program)
    assert done.status == 1
    assert str(path) in done.err
    assert "No such file or directory" in done.err
    assert spawn("-symbol-file", tmp_path / "symbols", "-slab-allocate", "16Mb", program) == error(
        "the memory manager cannot make linked code an image of the process"
    )


def test_a_library_of_the_command_is_an_image_of_its_own(tmp_path: Path) -> None:
    library = compile_to(
        tmp_path / "library.o",
        """
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <stdio.h>
        void tell(const void *address) {
          Dl_info info;
          if (dladdr(address, &info))
            printf("%s %s\\n", info.dli_fname, info.dli_sname ? info.dli_sname : "-");
          fflush(stdout);
        }
        void of_library(void) { tell((const void *)of_library); }
        """,
        "zig",
        "-fPIC",
    )
    program = compile_to(
        tmp_path / "program.o",
        "void tell(const void *), of_library(void);"
        "int main(void) { tell((const void *)main); of_library(); return 0; }",
        "zig",
        "-fPIC",
    )
    words: list[str | Path] = [program, "-llib", "-jd", "lib", library, "-args", "name"]
    assert spawn(*words).out == "name -\nlib of_library\n"


def test_there_is_no_image_in_a_slab(tmp_path: Path) -> None:
    source = """
    #define _GNU_SOURCE
    #include <dlfcn.h>
    int main(void) { Dl_info info; return dladdr(main, &info) ? info.dli_fname[0] : 0; }
    """
    program = compile_to(tmp_path / "program.o", source, "zig", "-fPIC")
    # jitlink's own answer is the name of the JITDylib.
    assert spawn("-slab-allocate", "16Mb", program).status == ord("m")
    assert spawn("-slab-allocate", "16Mb", "-rdynamic", program) == error(
        "the memory manager cannot make linked code an image of the process"
    )


def test_systems_without_images_run_programs_all_the_same(tmp_path: Path) -> None:
    program = compile_to(tmp_path / "program.o", "int main(void) { return 3; }", "zig", "-fPIC")
    code = """if True:
        import sys
        from jitlink.memory import tls_glibc
        from jitlink.tool.main import main
        tls_glibc.glibc_version = tuple
        sys.exit(main(sys.argv[1:]))
    """
    for words, status in (([], 3), (["-rdynamic"], 1)):
        command = [sys.executable, "-c", code, *words, str(program)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == status
        assert ("on Linux with the GNU C library only" in done.stderr) == bool(words)
