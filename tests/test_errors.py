"""What messages of errors say."""

import pickle

import pytest

from jitlink.errors import UndefinedSymbolError


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
            # What was meant says more than where such names usually are.
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


def test_advice_is_bounded() -> None:
    names = ["__atomic_x", "cosf", "_Unwind_Resume", "_gfortran_stop", "__gcov_init"]
    assert str(UndefinedSymbolError(names)).count("usually") == 3
