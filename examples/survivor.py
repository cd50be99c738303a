"""Calls the C code of parser.o in another process, and goes on in a new one when that crashes."""

import ctypes

import jitlink
from jitlink.executor import ExecutorCrashedError, RemoteExecutorProcessControl

with (
    RemoteExecutorProcessControl.launch(on_crash="restart") as executor,
    jitlink.load("parser.o", executor=executor) as parser,
):
    last_digit = parser.last_digit
    last_digit.argtypes = [ctypes.c_char_p]
    for text in (b"12", b"", b"345"):
        try:
            print(text, last_digit(text))
        except ExecutorCrashedError as error:
            print(text, error)
print("still here")
