"""What the libraries of this process have at an address."""

import ctypes

from jitlink.executor import LibrarySymbol, SelfExecutorProcessControl
from jitlink.link import run_in_process

EXECUTOR = SelfExecutorProcessControl.shared()


def describe(*names: str) -> list[LibrarySymbol | None]:
    addresses = run_in_process(EXECUTOR.lookup_symbols(names))
    return run_in_process(EXECUTOR.describe_addresses([each or 0 for each in addresses]))


def test_a_function() -> None:
    # No function of the program, which may have a canonical PLT entry.
    (symbol,) = describe("hsearch")
    assert symbol is not None
    assert symbol.is_function
    assert "libc.so" in symbol.library


def test_a_variable_that_changes() -> None:
    (symbol,) = describe("environ")
    assert symbol is not None
    assert (symbol.is_function, symbol.size, symbol.is_constant) == (False, 8, False)


def test_what_is_constant_after_relocation() -> None:
    run_in_process(EXECUTOR.load_dylib("libstdc++.so.6"))
    table, information, stream = describe("_ZTVSt9exception", "_ZTIi", "_ZSt4cout")
    assert table is not None
    assert (table.size, table.is_constant) == (40, True)
    assert information is not None
    assert (information.size, information.is_constant) == (16, True)
    assert stream is not None
    assert not stream.is_constant


def test_other_memory() -> None:
    buffer = ctypes.create_string_buffer(8)
    callback = ctypes.CFUNCTYPE(None)(lambda: None)
    code = ctypes.cast(callback, ctypes.c_void_p).value or 0
    data, function, nothing = run_in_process(
        EXECUTOR.describe_addresses([ctypes.addressof(buffer), code, 0])
    )
    assert data is None
    assert function is not None
    assert function.is_function
    assert nothing is None


def test_an_address_within_a_variable() -> None:
    (address,) = run_in_process(EXECUTOR.lookup_symbols(["environ"]))
    assert address is not None
    assert run_in_process(EXECUTOR.describe_addresses([address + 1])) == [None]
