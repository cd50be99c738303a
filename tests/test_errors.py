"""The tree of exceptions in the documentation, and messages of errors."""

import importlib
import pickle
import pkgutil
import re
import sys
from collections.abc import Iterator, Sequence

import pytest

import jitlink
from jitlink import errors
from jitlink.errors import DefiningLibrary, JITLinkError, UndefinedSymbolError

_ENTRY = re.compile(r"((?:│   |    )*)(?:[├└]── )?(\w+)(?: +\S.*?)?(?: \[([\w.]+)\])?")


def documented() -> dict[str, tuple[str | None, str]]:
    """Parent and module of each class in the tree of the module's documentation."""
    found: dict[str, tuple[str | None, str]] = {}
    path: list[str] = []
    assert errors.__doc__ is not None
    block = errors.__doc__.partition("::\n\n")[2].partition("\n\n")[0]
    for line in block.splitlines():
        text = line.removeprefix("    ")
        entry = _ENTRY.fullmatch(text)
        assert entry is not None, line
        indent, name, module = entry.groups()
        depth = len(indent) // 4 + ("── " in text)
        path[depth:] = [name]
        assert name not in found
        found[name] = (path[-2] if depth else None, module or "errors")
    return found


def defined(cls: type[JITLinkError], parent: str | None) -> Iterator[tuple[str, str | None, str]]:
    """Name, parent and module of a class and its subclasses; private ones are left out."""
    if cls.__name__.startswith("_"):
        name = parent
    else:
        name = cls.__name__
        yield name, parent, cls.__module__.removeprefix("jitlink.")
    for subclass in cls.__subclasses__():
        module = sys.modules[subclass.__module__]
        # Those that are derived from the class of a cause, too, have the name of another class.
        is_named = vars(module).get(subclass.__name__) is subclass
        if subclass.__module__.partition(".")[0] == "jitlink" and is_named:
            yield from defined(subclass, name)


def test_documented_tree_is_complete() -> None:
    for module in pkgutil.walk_packages(jitlink.__path__, "jitlink."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found = list(defined(JITLinkError, None))
    assert {name: (parent, module) for name, parent, module in found} == documented()
    assert len(found) == len(documented())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UndefinedSymbolError(["f"]), "undefined symbol: f"),
        (UndefinedSymbolError(["f", "g"]), "undefined symbols: f, g"),
        (
            UndefinedSymbolError(["f"], referrers={"f": ["a.o", "b.o", "c.o"]}),
            "undefined symbol: f (referenced by a.o and 2 more)",
        ),
        (
            UndefinedSymbolError(["_ZN3foo3barEv"], referrers={"_ZN3foo3barEv": ["a.o"]}),
            "undefined symbol: _ZN3foo3barEv (foo::bar(); referenced by a.o)",
        ),
        (
            UndefinedSymbolError(["hepler"], suggestions={"hepler": "helper"}),
            "undefined symbol: hepler; did you mean helper?",
        ),
        (
            UndefinedSymbolError(["a", "_Z1fi"], suggestions={"_Z1fi": "_Z1fd"}),
            "undefined symbols: a, _Z1fi (f(int)); did you mean _Z1fd (f(double)) for _Z1fi?",
        ),
        (
            UndefinedSymbolError(["__atomic_load", "x", "__atomic_store", "cosf"]),
            (
                "undefined symbols: __atomic_load, x, __atomic_store, cosf; __atomic_load is "
                "usually in libatomic (-latomic); cosf is usually in the mathematics library (-lm)"
            ),
        ),
        (
            # A similar name takes precedence over the library that usually defines the name.
            UndefinedSymbolError(["cosf"], suggestions={"cosf": "cosg"}),
            "undefined symbol: cosf; did you mean cosg?",
        ),
    ],
)
def test_message_of_undefined_symbols(error: UndefinedSymbolError, message: str) -> None:
    assert str(error) == message


def test_undefined_symbols_can_be_pickled() -> None:
    again = pickle.loads(pickle.dumps(UndefinedSymbolError(["f", "g"], referrers={"f": ["a.o"]})))
    assert again.names == ("f", "g")
    assert again.referrers == {"f": ("a.o",), "g": ()}


def test_the_list_of_names_is_bounded() -> None:
    names = [f"f{number}" for number in range(1000)]
    error = UndefinedSymbolError(names)
    assert str(error) == f"undefined symbols: {', '.join(names[:20])} and 980 more"
    assert error.names == tuple(names)
    assert str(UndefinedSymbolError(names[:20])).endswith("f18, f19")


def test_advice_is_bounded() -> None:
    names = ["__atomic_x", "cosf", "_Unwind_Resume", "_gfortran_stop", "__gcov_init"]
    assert str(UndefinedSymbolError(names)).count("usually") == 3


def test_libraries_that_define_names() -> None:
    asked: list[Sequence[str]] = []

    def search(names: Sequence[str]) -> dict[str, list[DefiningLibrary]]:
        asked.append(names)
        first, second = DefiningLibrary("/lib/libx.so", "-lx"), DefiningLibrary("/lib/liby.so.1")
        return {"f": [first, second], "g": [first, second], "k": [second]}

    names = ["f", "cosf", "h@V1", "g", "h", "k", "", "a\0b"]
    error = UndefinedSymbolError(names, search=search)
    assert not asked
    assert str(error).endswith(
        "; cosf is usually in the mathematics library (-lm)"
        "; f is in /lib/libx.so (-lx) or /lib/liby.so.1; k is in /lib/liby.so.1"
    )
    assert error.libraries["k"] == (DefiningLibrary("/lib/liby.so.1"),)
    # Once, and only for names that the table does not have.
    assert asked == [["f", "g", "h", "k"]]
    assert not UndefinedSymbolError(["cosf"], search=search).libraries
    assert len(asked) == 1
    str(UndefinedSymbolError([f"f{number}" for number in range(1000)], search=search))
    assert len(asked[1]) == 20


def test_a_search_that_fails_is_not_repeated() -> None:
    def search(names: Sequence[str]) -> dict[str, list[DefiningLibrary]]:
        raise MemoryError(names)

    error = UndefinedSymbolError(["f"], search=search)
    with pytest.raises(MemoryError):
        str(error)
    assert str(error) == "undefined symbol: f"
