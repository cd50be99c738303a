"""The options of the command, one row each.

Parsing, the help page and the tables of ``docs/command.md`` are made from these rows.
"""

from __future__ import annotations

from typing import get_args

from jitlink.tool.options.command_line import DEFAULT_ENTRY, Form, GraphFormat, Group, Option
from jitlink.tool.options.values import (
    add_input,
    add_loggers,
    alias,
    append,
    append_here,
    begin_dylib,
    begin_lazy,
    boolean,
    definition,
    negated,
    number,
    one_of,
    output_file,
    pattern,
    put,
    put_entry,
    refuse,
    section,
    size,
)

_NO_EXECUTOR = "code can only be linked into this process yet, not into another executor"

OPTIONS: tuple[Option, ...] = (
    Option(
        "l", Form.JOINED, Group.INPUTS,
        "link the library libNAME, static if there is libNAME.a, else shared: found in the "
        "directories of -L, then where the system's compiler looks; or the JITDylib NAME",
        add_input("library"), "NAME",
    ),
    Option(
        "L", Form.JOINED, Group.INPUTS,
        "look for libraries of this JITDylib in this directory; several are searched in order",
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
        "let what the interface libNAME.tbd names be missing; only Mach-O has such interfaces, so "
        "it is refused for the objects that can be linked",
        add_input("library", "weak"), "NAME",
    ),
    Option(
        "weak_library", Form.VALUE, Group.INPUTS,
        "let what an interface file names be missing; refused as -weak-l is",
        add_input("file", "weak"), "FILE",
    ),
    Option(
        "all_load", Form.FLAG, Group.INPUTS,
        "read all members of static archives, not only those that define what is missing",
        put("all_load", boolean),
    ),
    Option(
        "ObjC", Form.FLAG, Group.INPUTS,
        "read all Mach-O members of static archives that have Objective-C or Swift classes; "
        "accepted for compatibility: no other member is concerned, and ELF archives have none",
        put("objc", boolean),
    ),
    Option(
        "search-sys-lib", Form.FLAG, Group.INPUTS,
        "look for libraries in the directories of LD_LIBRARY_PATH too, after those of -L",
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
        "expect inputs for this target: those of another object format are refused",
        put("triple"), "TRIPLE",
    ),
    Option(
        "jd", Form.VALUE, Group.DYLIBS,
        "put all that follows into a new JITDylib of this name: inputs, -L, -l, -abs, -alias and "
        "-sectcreate; what stands before the first -jd is in main",
        begin_dylib, "NAME",
    ),
    Option(
        "abs", Form.VALUE, Group.SYMBOLS,
        "define a symbol as an address: decimal, 0x, 0b, or octal with a leading 0",
        append_here("definitions", definition), "NAME=ADDRESS",
    ),
    Option(
        "alias", Form.VALUE, Group.SYMBOLS,
        "define a symbol as another name of an existing one; either may be given with its "
        "JITDylib, as JD:NAME",
        append_here("aliases", alias), "NEW=OLD",
    ),
    Option(
        "phony-externals", Form.FLAG, Group.SYMBOLS,
        "give symbols that nobody defines an address without a use, instead of failing",
        put("phony_externals", boolean),
    ),
    Option(
        "harness", Form.FILES, Group.SYMBOLS,
        "test the inputs with these objects, all that follow up to -args: their definitions come "
        "first, and they see what is local to the inputs",
        append("harness"), "FILE...",
    ),
    Option(
        "no-process-syms", Form.FLAG, Group.SYMBOLS,
        "do not look for symbols in this process: in the C library and whatever it has loaded",
        put("process_symbols", negated),
    ),
    Option(
        "add-self-relocations", Form.FLAG, Group.SYMBOLS,
        "add relocations where x86-64 functions compute their own address without one; reads "
        "instructions with the package capstone",
        put("add_self_relocations", boolean),
    ),
    Option(
        "entry", Form.VALUE, Group.RUNNING,
        f"call this function, not {DEFAULT_ENTRY}", put_entry, "NAME",
    ),
    Option(
        "args", Form.REST, Group.RUNNING,
        "pass all that follows to the program; its argv[0] is the first of it",
        append("arguments"), "ARGUMENT...",
    ),
    Option(
        "noexec", Form.FLAG, Group.RUNNING, "link, but do not run anything",
        put("noexec", boolean),
    ),
    Option(
        "num-threads", Form.VALUE, Group.RUNNING,
        "link on so many threads; one is used whatever is said, but with 0 nothing is linked in "
        "the background, so that -speculate has no effect",
        put("threads", number), "COUNT",
    ),
    Option(
        "lazy", Form.FLAG, Group.LAZY,
        "link the input that follows when one of its functions is called",
        begin_lazy,
    ),
    Option(
        "speculate", Form.VALUE, Group.LAZY,
        "whether lazy functions are linked in the background once something can call them: simple "
        "or none",
        put("speculate", one_of(("none", "simple"))), "SCHEME",
    ),
    Option(
        "speculate-order", Form.VALUE, Group.LAZY,
        "what -speculate links first: a file with a line 'JITDylib, function' for each",
        put("speculate_order"), "FILE",
    ),
    Option(
        "record-lazy-execs", Form.VALUE, Group.LAZY,
        "write such a file, of the lazy functions in the order of their first calls",
        put("record_lazy_execs"), "FILE",
    ),
    Option(
        "slab-allocate", Form.VALUE, Group.MEMORY,
        "take all memory from one slab of this size: a number of kilobytes, or with a unit "
        "Kb, Mb or Gb",
        put("slab_size", size), "SIZE",
    ),
    Option(
        "slab-address", Form.VALUE, Group.MEMORY,
        "link as if the slab were at this address; if it cannot be there, only with -noexec",
        put("slab_address", number), "ADDRESS",
    ),
    Option(
        "slab-page-size", Form.VALUE, Group.MEMORY,
        "align segments in the slab to this many bytes, a power of two",
        put("slab_page_size", number), "BYTES",
    ),
    Option(
        "use-memmgr", Form.VALUE, Group.MEMORY,
        "how another executor's memory is written: default, generic, simple-remote or shared; "
        "accepted for compatibility: there is one way for this process",
        put("memory_manager", one_of(("default", "generic", "simple-remote", "shared"))), "KIND",
    ),
    Option(
        "check", Form.VALUE, Group.LOOKING,
        "check, before anything runs, what was linked against the rules in this file; several "
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
        "name each object that is linked", put("show_linked_files", boolean),
    ),
    Option(
        "show-addrs", Form.FLAG, Group.LOOKING,
        "print the addresses of symbols, sections, GOT entries and stubs",
        put("show_addrs", boolean),
    ),
    Option(
        "show-graphs", Form.VALUE, Group.LOOKING,
        "print the link graphs of the objects whose names match a regular expression, after "
        "fixups",
        put("show_graphs", pattern), "REGEX",
    ),
    Option(
        "show-graphs-format", Form.VALUE, Group.LOOKING,
        "how -show-graphs prints: text, json (a line for each object) or dot, for Graphviz",
        put("show_graphs_format", one_of(get_args(GraphFormat))), "FORMAT",
    ),
    Option(
        "map", Form.VALUE, Group.LOOKING,
        "write a link map: every object and why it is there, what is where, what is not loaded, "
        "what is from elsewhere; - is standard output",
        put("map_file", output_file), "FILE",
    ),
    Option(
        "trace-symbol", Form.VALUE, Group.LOOKING,
        "tell who defines a symbol, who refers to it, and whose definition holds and why",
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
        "print them after it was looked up, or could not be", put("show_entry_session", boolean),
    ),
    Option(
        "show-err-failed-to-materialize", Form.FLAG, Group.LOOKING,
        "after an error, also say which symbols could not be made because of it",
        put("show_failures", boolean),
    ),
    Option(
        "show-times", Form.FLAG, Group.LOOKING,
        "print how long reading, linking and running took, on standard error, once main returns",
        put("show_times", boolean),
    ),
    Option(
        "debug-only", Form.VALUE, Group.LOOKING,
        "write a log of these parts of the linker, separated by commas; jitlink is all of them",
        add_loggers, "PART,...",
    ),
    Option(
        "write-symtab", Form.VALUE, Group.BACKTRACES,
        "write the address and name of every linked symbol to a file", put("write_symtab"), "FILE",
    ),
    Option(
        "symbolicate-with", Form.VALUE, Group.BACKTRACES,
        "link nothing: print the inputs, which are backtraces (- for standard input), with the "
        "symbols from a file of -write-symtab behind addresses at the ends of lines",
        put("symbolicate_with"), "FILE",
    ),
    Option(
        "orc-runtime", Form.VALUE, Group.ELSEWHERE,
        "run the program with LLVM's ORC run-time library, liborc_rt-x86_64.a of LLVM 22, in place "
        "of jitlink's own", put("orc_runtime"), "FILE",
    ),
    Option(
        "oop-executor", Form.OPTIONAL, Group.ELSEWHERE,
        "run in another process, started from this program; refused for now",
        refuse("oop-executor", _NO_EXECUTOR), "FILE",
    ),
    Option(
        "oop-executor-connect", Form.VALUE, Group.ELSEWHERE,
        "run in another process, at this address; refused for now",
        refuse("oop-executor-connect", _NO_EXECUTOR), "HOST:PORT",
    ),
    *(
        Option(
            f"{name}-support", Form.FLAG, Group.ELSEWHERE,
            f"tell {who} what is linked; refused for now, but =false is what is done",
            refuse(f"{name}-support", f"{who} cannot be told yet what is linked"),
        )
        for name, who in (
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
        "print the options of this command with their values, then obey it",
        put("print_options", lambda text: "given" if boolean(text) else None),
    ),
    Option(
        "print-all-options", Form.FLAG, Group.HELP,
        "print those that are not given too, without a value",
        put("print_options", lambda text: "all" if boolean(text) else None),
    ),
    Option("version", Form.FLAG, Group.HELP, "print the version", put("version", boolean)),
)  # fmt: skip
