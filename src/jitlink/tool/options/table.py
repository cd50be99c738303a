"""The options of the command, one row each.

The parser, the help page and the tables of ``docs/command.md`` use these rows.
"""

from __future__ import annotations

from typing import get_args

from jitlink.tool.options.command_line import DEFAULT_ENTRY, Form, GraphFormat, Group, Option
from jitlink.tool.options.values import (
    accept,
    add_input,
    add_loggers,
    alias,
    append,
    append_here,
    begin_dylib,
    begin_lazy,
    boolean,
    definition,
    executor_address,
    negated,
    number,
    one_of,
    output_file,
    pattern,
    put,
    put_entry,
    refuse,
    search_for,
    section,
    size,
    symbol_name,
)

OPTIONS: tuple[Option, ...] = (
    Option(
        "l", Form.JOINED, Group.INPUTS,
        "link libNAME.a, or else libNAME.so, from the directories of -L, then from those of the "
        "system's compiler; or the file FILE if the name is :FILE; or link against the JITDylib "
        "NAME",
        add_input("library"), "NAME",
    ),
    *(
        Option(
            name, Form.FLAG, Group.INPUTS,
            "link only static libraries for the -l that follow; for those of the C library, which "
            "a process has once, the process's own" if name == "Bstatic" else "same as -Bstatic",
            search_for("static"),
        )
        for name in ("Bstatic", "dn", "non_shared", "static")
    ),
    *(
        Option(
            name, Form.FLAG, Group.INPUTS,
            "prefer shared libraries for the -l that follow, as GNU ld does by default"
            if name == "Bdynamic" else "same as -Bdynamic",
            search_for("shared"),
        )
        for name in ("Bdynamic", "dy", "call_shared")
    ),
    *(
        Option(
            name, Form.FLAG, Group.INPUTS,
            f"{place} a group of archives, which is searched repeatedly; accepted for "
            "compatibility, because all archives are such a group",
            accept,
        )
        for name, place in (("start-group", "begin"), ("end-group", "end"))
    ),
    Option(
        "L", Form.JOINED, Group.INPUTS,
        "search this directory for libraries of this JITDylib; several are searched in order",
        append_here("library_directories"), "DIR",
    ),
    Option(
        "hidden-l", Form.JOINED, Group.INPUTS,
        "link the static library libNAME.a; other JITDylibs do not see its symbols",
        add_input("library", "hidden"), "NAME",
    ),
    Option(
        "load_hidden", Form.VALUE, Group.INPUTS,
        "link this static archive; other JITDylibs do not see its symbols",
        add_input("file", "hidden"), "FILE",
    ),
    Option(
        "weak-l", Form.JOINED, Group.INPUTS,
        "allow the symbols of the interface libNAME.tbd to be missing; refused, because only "
        "Mach-O has such interfaces",
        add_input("library", "weak"), "NAME",
    ),
    Option(
        "weak_library", Form.VALUE, Group.INPUTS,
        "allow the symbols of an interface file to be missing; refused as -weak-l is",
        add_input("file", "weak"), "FILE",
    ),
    Option(
        "all_load", Form.FLAG, Group.INPUTS,
        "extract all members of static archives, not only those that define undefined symbols",
        put("all_load", boolean),
    ),
    Option(
        "ObjC", Form.FLAG, Group.INPUTS,
        "extract all Mach-O members of static archives that have Objective-C or Swift classes; "
        "accepted for compatibility, without effect on ELF archives",
        accept,
    ),
    Option(
        "search-sys-lib", Form.FLAG, Group.INPUTS,
        "search the directories of LD_LIBRARY_PATH for libraries too, after those of -L",
        put("search_system_libraries", boolean),
    ),
    Option(
        "preload", Form.VALUE, Group.INPUTS,
        "load a shared library into the process before anything is linked",
        append("preloads"), "FILE",
    ),
    Option(
        "sectcreate", Form.VALUE, Group.INPUTS,
        "make a read-only section from a file, with symbols at offsets in it",
        append_here("sections", section), "SECTION,FILE[@NAME=OFFSET,...]",
    ),
    Option(
        "triple", Form.VALUE, Group.INPUTS,
        "refuse inputs whose object format is not that of this target",
        put("triple"), "TRIPLE",
    ),
    Option(
        "jd", Form.VALUE, Group.DYLIBS,
        "create a JITDylib of this name for the arguments that follow: inputs, -L, -l, -abs, "
        "-alias and -sectcreate; those before the first -jd belong to main",
        begin_dylib, "NAME",
    ),
    Option(
        "abs", Form.VALUE, Group.SYMBOLS,
        "define an absolute symbol; the address is decimal, 0x, 0b, or octal with a leading 0",
        append_here("definitions", definition), "NAME=ADDRESS",
    ),
    Option(
        "alias", Form.VALUE, Group.SYMBOLS,
        "define an alias of a symbol; either name may be qualified with its JITDylib, as JD:NAME",
        append_here("aliases", alias), "NEW=OLD",
    ),
    Option(
        "u", Form.JOINED, Group.SYMBOLS,
        "link what defines this symbol, whether or not anything refers to it; of archives, the "
        "member that does; no error if nothing does",
        append_here("undefined", symbol_name), "NAME",
    ),
    Option(
        "undefined", Form.VALUE, Group.SYMBOLS, "the same as -u",
        append_here("undefined", symbol_name), "NAME",
    ),
    Option(
        "phony-externals", Form.FLAG, Group.SYMBOLS,
        "give undefined symbols unused addresses, instead of failing",
        put("phony_externals", boolean),
    ),
    Option(
        "harness", Form.FILES, Group.SYMBOLS,
        "test the inputs with these objects, up to -args: their definitions take precedence, and "
        "they see the inputs' local symbols",
        append("harness"), "FILE...",
    ),
    Option(
        "no-process-syms", Form.FLAG, Group.SYMBOLS,
        "do not search this process (the C library and all other loaded libraries) for symbols",
        put("process_symbols", negated),
    ),
    Option(
        "add-self-relocations", Form.FLAG, Group.SYMBOLS,
        "add relocations where x86-64 functions compute their own address without one; needs the "
        "package capstone",
        put("add_self_relocations", boolean),
    ),
    Option(
        "entry", Form.VALUE, Group.RUNNING,
        f"call this function instead of {DEFAULT_ENTRY}", put_entry, "NAME",
    ),
    Option(
        "args", Form.REST, Group.RUNNING,
        "pass all words that follow to the program; the first of them is argv[0]",
        append("arguments"), "ARGUMENT...",
    ),
    Option(
        "noexec", Form.FLAG, Group.RUNNING, "link, but do not run anything",
        put("noexec", boolean),
    ),
    Option(
        "rdynamic", Form.FLAG, Group.RUNNING,
        "export the program's symbols to the shared libraries that it loads",
        put("rdynamic", boolean),
    ),
    Option(
        "executable-stack", Form.FLAG, Group.RUNNING,
        "link objects whose code needs executable stacks, and make the stacks of all threads "
        "executable; an overflow of a buffer on a stack can then become code",
        put("executable_stack", boolean),
    ),
    Option(
        "writable-code", Form.FLAG, Group.RUNNING,
        "link sections that are both writable and executable, and map them so; whatever can be "
        "made to write there can then become code",
        put("writable_code", boolean),
    ),
    Option(
        "num-threads", Form.VALUE, Group.RUNNING,
        "accepted for compatibility: one thread links; 0 turns off links in the background, and "
        "with them -speculate",
        put("threads", number), "COUNT",
    ),
    Option(
        "lazy", Form.FLAG, Group.LAZY,
        "link the next input when one of its functions is called",
        begin_lazy,
    ),
    Option(
        "speculate", Form.VALUE, Group.LAZY,
        "whether to link lazy functions in the background once something can call them: simple "
        "or none",
        put("speculate", one_of(("none", "simple"))), "SCHEME",
    ),
    Option(
        "speculate-order", Form.VALUE, Group.LAZY,
        "the functions that -speculate links first: a file of lines 'JITDylib, function'",
        put("speculate_order"), "FILE",
    ),
    Option(
        "record-lazy-execs", Form.VALUE, Group.LAZY,
        "write such a file of the lazy functions, in the order of their first calls",
        put("record_lazy_execs"), "FILE",
    ),
    Option(
        "slab-allocate", Form.VALUE, Group.MEMORY,
        "allocate all memory from one slab of this size: a number of kilobytes, or with a unit "
        "Kb, Mb or Gb",
        put("slab_size", size), "SIZE",
    ),
    Option(
        "slab-address", Form.VALUE, Group.MEMORY,
        "link for a slab at this address; needs -noexec if it cannot be mapped there",
        put("slab_address", number), "ADDRESS",
    ),
    Option(
        "slab-page-size", Form.VALUE, Group.MEMORY,
        "align segments in the slab to this many bytes, a power of two",
        put("slab_page_size", number), "BYTES",
    ),
    Option(
        "no-pie", Form.FLAG, Group.MEMORY,
        "link for addresses below 2 GiB, as code compiled with -fno-pic needs; this is found out, "
        "unless such code is added after other code was linked, as with -lazy",
        put("no_pie", boolean),
    ),
    Option(
        "use-memmgr", Form.VALUE, Group.MEMORY,
        "how to manage the memory of another executor: generic (reserved for each link), "
        "simple-remote (a gigabyte at once), shared (the same, in memory that both processes map), "
        "or default: shared with -oop-executor, else generic; without effect in this process",
        put("memory_manager", one_of(("default", "generic", "simple-remote", "shared"))), "KIND",
    ),
    Option(
        "check", Form.VALUE, Group.LOOKING,
        "check linked memory against the rules in this file before anything runs; several files "
        "are checked in order",
        append("check_files"), "FILE",
    ),
    Option(
        "check-name", Form.VALUE, Group.LOOKING,
        "the rules are the lines that begin with '# NAME:', not '# jitlink-check:'",
        put("check_name"), "NAME",
    ),
    Option(
        "show-linked-files", Form.FLAG, Group.LOOKING,
        "print the name of each object that is linked", put("show_linked_files", boolean),
    ),
    Option(
        "show-addrs", Form.FLAG, Group.LOOKING,
        "print the addresses of symbols, sections, GOT entries and stubs",
        put("show_addrs", boolean),
    ),
    Option(
        "show-graphs", Form.VALUE, Group.LOOKING,
        "print the link graphs, after fixups, of the objects whose names match a regular "
        "expression, and the linker's own, such as <stubs> of lazy functions",
        put("show_graphs", pattern), "REGEX",
    ),
    Option(
        "show-graphs-format", Form.VALUE, Group.LOOKING,
        "the output of -show-graphs: text, json (one line per object) or dot, for Graphviz",
        put("show_graphs_format", one_of(get_args(GraphFormat))), "FORMAT",
    ),
    Option(
        "map", Form.VALUE, Group.LOOKING,
        "write a link map: the objects and why they were linked, the layout of memory, what was "
        "not loaded, and external symbols; - is standard output",
        put("map_file", output_file), "FILE",
    ),
    Option(
        "trace-symbol", Form.VALUE, Group.LOOKING,
        "print which objects define and reference a symbol, and which definition holds and why",
        append("traced_symbols"), "NAME",
    ),
    Option(
        "show-relocated-section-contents", Form.FLAG, Group.LOOKING,
        "print the bytes of all sections, after fixups", put("show_contents", boolean),
    ),
    Option(
        "show-init-es", Form.FLAG, Group.LOOKING,
        "print the JITDylibs with their symbols before the entry point is looked up",
        put("show_initial_session", boolean),
    ),
    Option(
        "show-entry-es", Form.FLAG, Group.LOOKING,
        "print them after that lookup, also if it failed", put("show_entry_session", boolean),
    ),
    Option(
        "show-err-failed-to-materialize", Form.FLAG, Group.LOOKING,
        "after an error, also print which symbols failed to materialize because of it",
        put("show_failures", boolean),
    ),
    Option(
        "show-times", Form.FLAG, Group.LOOKING,
        "print how long reading, linking and running took, on standard error, once main returns",
        put("show_times", boolean),
    ),
    Option(
        "debug-only", Form.VALUE, Group.LOOKING,
        "log these parts of the linker, separated by commas; jitlink selects all",
        add_loggers, "PART,...",
    ),
    Option(
        "write-symtab", Form.VALUE, Group.BACKTRACES,
        "write the address and name of every linked symbol to a file", put("write_symtab"), "FILE",
    ),
    Option(
        "symbol-file", Form.VALUE, Group.BACKTRACES,
        "write the program's symbols to a file in ELF, and name the program after it, so that "
        "symbolizers in its process (Rust's, sanitizers') find its functions",
        put("symbol_file"), "FILE",
    ),
    Option(
        "symbolicate-with", Form.VALUE, Group.BACKTRACES,
        "link nothing: print the inputs, which are backtraces (- is standard input), with symbols "
        "from a file of -write-symtab after the addresses that end lines",
        put("symbolicate_with"), "FILE",
    ),
    Option(
        "orc-runtime", Form.VALUE, Group.ELSEWHERE,
        "run the program with LLVM's ORC runtime, liborc_rt-x86_64.a of LLVM 22, instead of "
        "jitlink's own", put("orc_runtime"), "FILE",
    ),
    *(
        Option(
            name, Form.OPTIONAL, Group.ELSEWHERE,
            "run in another process, started from this program, by default the executor for the "
            "first object, which for another processor qemu-user runs; words as in a shell are a "
            "command, such as 'qemu-aarch64 -L DIR EXECUTOR'",
            put("executor"), "FILE",
        )
        for name in ("oop-executor", "oop-launch")
    ),
    *(
        Option(
            name, Form.VALUE, Group.ELSEWHERE,
            "run in another process, which listens at this address, or at a Unix socket: a path "
            "has a slash", put("executor_address", executor_address), "HOST:PORT",
        )
        for name in ("oop-executor-connect", "oop-connect")
    ),
    Option(
        "emulate", Form.FLAG, Group.ELSEWHERE,
        "run in an emulated machine of the first object's architecture, without an operating "
        "system",
        put("emulate", boolean),
    ),
    Option(
        "oop-token-file", Form.VALUE, Group.ELSEWHERE,
        "send the line in this file first, as an executor with --token-file wants it",
        put("executor_token_file"), "FILE",
    ),
    Option(
        "oop-tls-ca", Form.VALUE, Group.ELSEWHERE,
        "connect by TLS, to an executor whose certificate an authority in this file vouches for",
        put("executor_authority"), "FILE",
    ),
    Option(
        "oop-tls-cert", Form.VALUE, Group.ELSEWHERE,
        "show the certificate in this file to an executor with --tls-ca; it has its key, too",
        put("executor_certificate"), "FILE",
    ),
    Option(
        "oop-sandbox", Form.OPTIONAL, Group.ELSEWHERE,
        "run in another process, of jitlink-executor in a sandbox; with a setting: read=PATH, "
        "write=PATH, library=PATH, network, memory=BYTES, cpu-time=SECONDS, file-size=BYTES, "
        "processes=COUNT, kill or accept=FEATURE; may be repeated",
        append("sandbox"), "SETTING",
    ),
    *(
        Option(
            f"{name}-support", Form.FLAG, Group.ELSEWHERE,
            f"register linked code with {tool}: not supported; only =false is accepted",
            refuse(f"linked code cannot be registered with {tool}"),
        )
        for name, tool in (
            ("debugger", "a debugger"),
            ("perf", "the profiler perf"),
            ("vtune", "the profiler VTune"),
        )
    ),
    *(
        Option(name, Form.FLAG, Group.HELP, "print this page", put("help", boolean))
        for name in ("help", "h", "help-hidden", "help-list", "help-list-hidden")
    ),
    Option(
        "print-options", Form.FLAG, Group.HELP,
        "print the options of this command with their values, then carry it out",
        put("print_options", lambda text: "given" if boolean(text) else None),
    ),
    Option(
        "print-all-options", Form.FLAG, Group.HELP,
        "also print the options that are not given, without a value",
        put("print_options", lambda text: "all" if boolean(text) else None),
    ),
    Option("version", Form.FLAG, Group.HELP, "print the version", put("version", boolean)),
)  # fmt: skip
