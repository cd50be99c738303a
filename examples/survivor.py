"""Calls the C code of parser.o in another process, and goes on when that crashes."""

import ctypes

import jitlink
from jitlink.executor import ExecutorCrashedError, RemoteExecutorProcessControl


def print_last_digits(texts: list[bytes]) -> list[bytes]:
    """Print results, up to a text that crashes the parser; returns the texts after that."""
    with (
        RemoteExecutorProcessControl.launch() as executor,
        jitlink.load("parser.o", executor=executor) as parser,
    ):
        parser.last_digit.argtypes = [ctypes.c_char_p]
        for number, text in enumerate(texts):
            try:
                print(text, parser.last_digit(text))
            except ExecutorCrashedError as error:
                print(text, error)
                return texts[number + 1 :]
    return []


remaining = [b"12", b"", b"345"]
while remaining:
    remaining = print_last_digits(remaining)
print("still here")
