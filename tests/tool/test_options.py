"""The table of options, and the parser."""

import re
from pathlib import Path

import pytest

from jitlink.tool.options import (
    AliasArgument,
    CommandLine,
    CommandLineError,
    DylibArguments,
    InputArgument,
    SectionArgument,
    parse,
)
from jitlink.tool.options.command_line import Form
from jitlink.tool.options.help_page import help_page, options_page
from jitlink.tool.options.manual import with_tables
from jitlink.tool.options.table import OPTIONS


def _file(name: str) -> InputArgument:
    return InputArgument("file", name)


def _library(name: str) -> InputArgument:
    return InputArgument("library", name)


def _dylib(name: str, *inputs: InputArgument, **given: object) -> dict[str, object]:
    """The attributes of the arguments of a JITDylib."""
    return {**vars(DylibArguments(name)), "inputs": list(inputs), **given}


def _dylibs(line: CommandLine) -> list[dict[str, object]]:
    return [vars(each) for each in line.dylibs]


def _line(*inputs: InputArgument, **given: object) -> dict[str, object]:
    """The attributes of a command with these inputs and arguments for main."""
    own = {name: given.pop(name) for name in vars(DylibArguments("main")).keys() & given.keys()}
    return {**_attributes(CommandLine()), "dylibs": [_dylib("main", *inputs, **own)], **given}


def _attributes(line: CommandLine) -> dict[str, object]:
    attributes = {**vars(line), "dylibs": _dylibs(line)}
    # The words themselves may differ between equivalent commands.
    del attributes["given"]
    return attributes


def test_nothing_but_files() -> None:
    assert _attributes(parse(["a.o", "-", "b.a"])) == _line(_file("a.o"), _file("-"), _file("b.a"))


@pytest.mark.parametrize("dash", ["-", "--"])
@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["all_load"], "all_load", True),
        (["phony-externals"], "phony_externals", True),
        (["noexec"], "noexec", True),
        (["noexec=false"], "noexec", False),
        (["noexec=0"], "noexec", False),
        (["noexec=TRUE"], "noexec", True),
        (["show-addrs"], "show_addrs", True),
        (["show-linked-files"], "show_linked_files", True),
        (["show-times"], "show_times", True),
        (["entry", "f"], "entry", "f"),
        (["entry=f=g"], "entry", "f=g"),
        (["entry="], "entry", "main"),
        (["entry", "-x"], "entry", "-x"),
        (["abs", "x=16"], "definitions", [("x", 16)]),
        (["abs=x=0x10"], "definitions", [("x", 16)]),
        (["abs=x=020"], "definitions", [("x", 16)]),
        (["abs=x=0xffffffffffffffff"], "definitions", [("x", 2**64 - 1)]),
        (["alias", "new=old"], "aliases", [AliasArgument("new", "old")]),
        (["alias=new=old=er"], "aliases", [AliasArgument("new", "old=er")]),
        (["alias=a:new=old"], "aliases", [AliasArgument("new", "old", "a", "a")]),
        (["alias=new=b:old"], "aliases", [AliasArgument("new", "old", None, "b")]),
        (["alias=a:new=b:old"], "aliases", [AliasArgument("new", "old", "a", "b")]),
        (["sectcreate", ".b,f"], "sections", [SectionArgument(".b", "f")]),
        (
            ["sectcreate=a,b,f@x=1,y=0x2"],
            "sections",
            [SectionArgument("a,b", "f", (("x", 1), ("y", 2)))],
        ),
        (["sectcreate=s,f@g@x=1"], "sections", [SectionArgument("s", "f@g", (("x", 1),))]),
        (["search-sys-lib"], "search_system_libraries", True),
        (["preload", "x.so"], "preloads", ["x.so"]),
        (["no-process-syms"], "process_symbols", False),
        (["no-process-syms=false"], "process_symbols", True),
        (["orc-runtime=rt.a"], "orc_runtime", "rt.a"),
        (["triple", "x86_64-linux-gnu"], "triple", "x86_64-linux-gnu"),
        (["add-self-relocations"], "add_self_relocations", True),
        (["num-threads=0"], "threads", 0),
        (["use-memmgr=shared"], "memory_manager", "shared"),
        (["show-relocated-section-contents"], "show_contents", True),
        (["show-entry-es"], "show_entry_session", True),
        (["show-init-es"], "show_initial_session", True),
        (["show-err-failed-to-materialize"], "show_failures", True),
        (["write-symtab", "f"], "write_symtab", "f"),
        (["symbolicate-with=f"], "symbolicate_with", "f"),
        (["speculate=none"], "speculate", "none"),
        (["print-options"], "print_options", "given"),
        (["print-all-options"], "print_options", "all"),
        (["h"], "help", True),
        (["check", "file"], "check_files", ["file"]),
        (["check-name", "my rules"], "check_name", "my rules"),
        (["check-name="], "check_name", ""),
        (["L", "dir"], "library_directories", ["dir"]),
        (["Ldir"], "library_directories", ["dir"]),
        (["L=dir"], "library_directories", ["dir"]),
        (["slab-allocate", "3"], "slab_size", 3 << 10),
        (["slab-allocate=3Kb"], "slab_size", 3 << 10),
        (["slab-allocate=3MB"], "slab_size", 3 << 20),
        (["slab-allocate=3gb"], "slab_size", 3 << 30),
        (["map", "a.map"], "map_file", "a.map"),
        (["map=-"], "map_file", "-"),
        (["trace-symbol", "f"], "traced_symbols", ["f"]),
        (["debug-only=jitlink,link"], "debug_only", ["jitlink", "link"]),
        (["help"], "help", True),
        (["version"], "version", True),
    ],
)
def test_option(dash: str, words: list[str], field: str, value: object) -> None:
    line = parse([dash + words[0], *words[1:], "a.o"])
    assert _attributes(line) == _line(_file("a.o"), **{field: value})


def test_inputs_keep_their_order() -> None:
    line = parse(["a.o", "-lm", "b.o", "-l", "z", "-l=q", "-lx=y"])
    assert line.inputs == [
        _file("a.o"),
        _library("m"),
        _file("b.o"),
        _library("z"),
        _library("q"),
        _library("x=y"),
    ]


def test_hidden_and_weak_libraries() -> None:
    line = parse(["-hidden-lx", "-weak-l", "y", "-load_hidden", "z.a", "-weak_library=w.tbd"])
    assert line.inputs == [
        InputArgument("library", "x", "hidden"),
        InputArgument("library", "y", "weak"),
        InputArgument("file", "z.a", "hidden"),
        InputArgument("file", "w.tbd", "weak"),
    ]
    options = [each.option for each in line.inputs]
    assert options == ["hidden-l", "weak-l", "load_hidden", "weak_library"]


def test_lazy_applies_to_the_next_input() -> None:
    words = "a.o -lazy b.o c.o -lazy -lx -ly -lazy -noexec d.o -lazy=false e.o -lazy -- f.o g.o"
    line = parse(words.split())
    lazy = [each.name for each in line.inputs if each.is_lazy]
    assert lazy == ["b.o", "x", "d.o", "f.o"]
    assert len(line.inputs) == 9


def test_what_follows_jd_belongs_to_it() -> None:
    words = "a.o -Lx -jd one b.o -Ly -lz -abs p=1 -jd two -alias q=p -sectcreate s,f c.o"
    line = parse(words.split())
    assert _dylibs(line) == [
        _dylib("main", _file("a.o"), library_directories=["x"]),
        _dylib(
            "one",
            _file("b.o"),
            _library("z"),
            library_directories=["y"],
            definitions=[("p", 1)],
        ),
        _dylib(
            "two",
            _file("c.o"),
            aliases=[AliasArgument("q", "p")],
            sections=[SectionArgument("s", "f")],
        ),
    ]


@pytest.mark.parametrize(
    ("words", "warnings"),
    [
        ("-lazy a.o -speculate simple -record-lazy-execs f", []),
        ("a.o -speculate simple", ["-speculate has no effect: no input is -lazy"]),
        ("a.o -speculate none", []),
        (
            "-lazy a.o -record-lazy-execs f",
            ["-record-lazy-execs has no effect: nothing speculates"],
        ),
        ("-lazy a.o -speculate-order f", ["-speculate-order has no effect: nothing speculates"]),
        ("a.o -noexec -args x", ["-args has no effect with -noexec"]),
        (
            "a.o -noexec -rdynamic -symbol-file f",
            ["-rdynamic has no effect with -noexec", "-symbol-file has no effect with -noexec"],
        ),
        (
            "a.o -symbolicate-with f -write-symtab g",
            ["-write-symtab has no effect with -symbolicate-with"],
        ),
    ],
)
def test_options_without_effect_are_warned_about(words: str, warnings: list[str]) -> None:
    line = parse(words.split())
    assert line.warnings == warnings
    if any("speculate" in each for each in warnings):
        assert (line.speculate_order, line.record_lazy_execs) == (None, None)


def test_last_value_of_an_option_holds_and_lists_grow() -> None:
    line = parse(["-entry", "a", "-Lx", "-entry", "b", "-Ly", "-abs", "p=1", "-abs", "q=2", "f.o"])
    assert (line.entry, line.dylibs[0].library_directories) == ("b", ["x", "y"])
    assert line.definitions == [("p", 1), ("q", 2)]


def test_words_after_args_belong_to_the_program() -> None:
    line = parse(["a.o", "-args", "-noexec", "b.o", "--", "-args", "-lm"])
    arguments = ["-noexec", "b.o", "--", "-args", "-lm"]
    assert _attributes(line) == _line(_file("a.o"), arguments=arguments)


def test_words_after_two_dashes_are_files() -> None:
    assert parse(["-noexec", "--", "-noexec", "--"]).inputs == [_file("-noexec"), _file("--")]


def test_slab_options() -> None:
    words = ["-slab-allocate=1Mb", "-slab-address", "0x1000", "-slab-page-size", "64", "a.o"]
    line = parse(words)
    assert (line.slab_size, line.slab_address, line.slab_page_size) == (1 << 20, 0x1000, 64)


def test_show_graphs_takes_a_format() -> None:
    assert parse(["-show-graphs=.", "a.o"]).show_graphs_format == "text"
    assert parse(["-show-graphs-format=dot", "-show-graphs=.", "a.o"]).show_graphs_format == "dot"


def test_show_graphs_takes_a_regular_expression() -> None:
    pattern = parse(["-show-graphs", "b.r$", "a.o"]).show_graphs
    assert pattern is not None
    assert pattern.search("foobar")
    assert not pattern.search("barfoo")


@pytest.mark.parametrize(
    ("words", "option", "message"),
    [
        ([], None, "no input files; -help says how the command is used"),
        (["-noexec"], None, "no input files; -help says how the command is used"),
        (["-entrz", "f"], None, "unknown option -entrz; did you mean -entry?"),
        (["--show-adrs"], None, "unknown option -show-adrs; did you mean -show-addrs?"),
        (["-zzz=1"], None, "unknown option -zzz; -help lists all options"),
        (["---noexec"], None, "unknown option --noexec; did you mean -noexec?"),
        (["a.o", "-entry"], "entry", "-entry: needs a value: -entry NAME"),
        (["a.o", "-l"], "l", "-l: needs a value: -lNAME"),
        (["-noexec=maybe"], "noexec", "-noexec: 'maybe' is neither true nor false"),
        (["-ObjC=maybe"], "ObjC", "-ObjC: 'maybe' is neither true nor false"),
        (["-vtune-support=no"], "vtune-support", "-vtune-support: 'no' is neither true nor false"),
        (
            ["-debugger-support"],
            "debugger-support",
            "-debugger-support: linked code cannot be registered with a debugger",
        ),
        (["-args=a"], "args", "-args: takes the words that follow it"),
        (["-abs", "x"], "abs", "-abs: 'x' is not of the form NAME=ADDRESS"),
        (["-abs", "=1"], "abs", "-abs: '=1' is not of the form NAME=ADDRESS"),
        (["-abs", "x=malloc"], "abs", "-abs: 'malloc' is not a number"),
        (["-abs", "x=-1"], "abs", "-abs: '-1' is not a number"),
        (["-abs", "x=1_0"], "abs", "-abs: '1_0' is not a number"),
        (["-abs", "x=08"], "abs", "-abs: '08' is not a number"),
        (
            ["-abs", "x=0x10000000000000000"],
            "abs",
            "-abs: 0x10000000000000000 does not fit 64 bits",
        ),
        (["-abs", f"x={'9' * 5000}"], "abs", f"-abs: {'9' * 5000} does not fit 64 bits"),
        (["-alias", "x="], "alias", "-alias: 'x=' is not of the form NEW=OLD"),
        (
            ["-slab-allocate", "10zb"],
            "slab-allocate",
            "-slab-allocate: '10zb' is not a size, such as 64Kb, 10Mb or 1Gb",
        ),
        (["-slab-allocate=0"], "slab-allocate", "-slab-allocate: 0 is not a possible size"),
        (
            ["-slab-allocate=99999999999999Gb"],
            "slab-allocate",
            "-slab-allocate: 99999999999999Gb is not a possible size",
        ),
        (
            ["a.o", "-slab-address=0"],
            "slab-address",
            "-slab-address: there is no slab without -slab-allocate",
        ),
        (
            ["a.o", "-slab-page-size=64"],
            "slab-page-size",
            "-slab-page-size: there is no slab without -slab-allocate",
        ),
        (
            ["a.o", "-show-graphs-format=dot"],
            "show-graphs-format",
            "-show-graphs-format: nothing is printed without -show-graphs",
        ),
        (["-map="], "map", "-map: '' is not the name of a file"),
        (["-slab-address=here"], "slab-address", "-slab-address: 'here' is not a number"),
        (
            ["-show-graphs", "("],
            "show-graphs",
            (
                "-show-graphs: '(' is not a regular expression: "
                "missing ), unterminated subpattern at position 0"
            ),
        ),
    ],
)
def test_wrong_command(words: list[str], option: str | None, message: str) -> None:
    with pytest.raises(CommandLineError, match=f"^{re.escape(message)}$") as caught:
        parse(words)
    assert caught.value.option == option


def test_flags_without_effect_change_nothing() -> None:
    words = [
        "-ObjC",
        "-start-group",
        "a.o",
        "-end-group",
        "-perf-support=false",
        "-vtune-support=0",
    ]
    assert _attributes(parse(words)) == _line(_file("a.o"))


def test_help_and_version_need_no_input() -> None:
    assert parse(["-help"]).help
    assert parse(["-version", "-slab-address=0"]).version


def test_help_page_has_each_option_once_and_fits_a_terminal() -> None:
    page = help_page()
    for option in OPTIONS:
        assert len(re.findall(rf"^  {re.escape(option.usage)}(  |$)", page, re.MULTILINE)) == 1
    assert max(map(len, page.splitlines())) <= 80


def test_examples_of_the_help_page_are_commands() -> None:
    examples = re.findall(r"as in: jitlink (.*)", help_page())
    assert len(examples) == 8
    for example in examples:
        assert parse(example.split()).inputs


def test_names_are_distinct_and_flags_have_no_value() -> None:
    assert len({option.name for option in OPTIONS}) == len(OPTIONS)
    for option in OPTIONS:
        assert (option.value == "") == (option.form is Form.FLAG)


def test_manual_has_the_tables_of_the_options() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "command.md").read_text(encoding="utf-8")
    assert with_tables(manual) == manual
    for option in OPTIONS:
        assert f"| `{option.usage}` |" in manual
    with pytest.raises(ValueError, match=r"tables for Inputs$"):
        with_tables("<!-- options: Inputs -->\n")


def test_options_can_be_printed() -> None:
    line = parse(["-noexec", "a.o", "-lm", "-print-options"])
    assert options_page(line) == "  -l = 'm'\n  -noexec = 'true'\n  -print-options = 'true'\n"
    everything = options_page(parse(["-noexec", "a.o", "-print-all-options"])).splitlines()
    assert len(everything) == len(OPTIONS)
    assert "  -entry" in everything
