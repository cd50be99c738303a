"""A conversation of a controller and an executor, recorded, to be played again with faults.

The controller links an object and runs it. It is one thread that makes one call after the other, so
it says the same again whenever it is told the same.
"""

import contextlib
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from jitlink.executor import RemoteExecutorProcessControl
from jitlink.executor.remote.channels import SocketChannel
from jitlink.executor.remote.messages import MessageReader, OpCode
from jitlink.lljit import LLJIT
from tests.executor.remote.fake import encoded, messages_of
from tests.executor.remote.listening import PROGRAM
from tests.toolchain import compile_c

SOURCE = """
#include <stdlib.h>
#include <string.h>
static char text[100] = "text";
int f(int x) { return x + (int)strlen(text) + atoi("40"); }
"""


@cache
def compiled() -> Path:
    """The object that is linked."""
    return compile_c(SOURCE, "gcc", ("-O1", "-fPIC", "-fno-builtin"))


def link_and_run(executor: RemoteExecutorProcessControl) -> None:
    """What the controller does."""
    with LLJIT(executor=executor, platform=False) as jit:
        jit.add_object(compiled())
        address = int(jit.lookup("f"))
        result = jit.session.wait(executor.run_as_int_function(address, -2))
        assert result == 42
        jit.session.wait(executor.read_memory(address, 8))
        jit.session.wait(executor.write_memory(address, b""))


@cache
def recorded() -> list[bytes]:
    """What the executor has said, message by message."""
    (controller, theirs), (ours, executor) = socket.socketpair(), socket.socketpair()
    with executor:
        process = subprocess.Popen(
            [PROGRAM, f"socket:adopt={executor.fileno()}"], pass_fds=(executor.fileno(),)
        )
    messages: list[bytes] = []

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        reader = MessageReader()
        while data := source.recv(1 << 16):
            target.sendall(data)
            if source is ours:
                messages.extend(encoded(*message) for message in reader.feed(data))
        target.shutdown(socket.SHUT_WR)

    threads = [
        threading.Thread(target=pass_on, args=pair) for pair in ((theirs, ours), (ours, theirs))
    ]
    for thread in threads:
        thread.start()
    with RemoteExecutorProcessControl(SocketChannel(controller), timeout=20) as control:
        link_and_run(control)
    for thread in threads:
        thread.join(20)
    assert process.wait(20) == 0
    for each in (theirs, ours):
        each.close()
    return messages


@contextlib.contextmanager
def played(script: Sequence[Sequence[bytes]]) -> Iterator[socket.socket]:
    """An executor that answers each call with the next part of a script, and then closes.

    Args:
        script: pieces that are sent at the beginning, then after each message; an empty part sends
            nothing.

    Yields:
        The controller's end of the connection.
    """
    ours, theirs = socket.socketpair()

    def play() -> None:
        messages = messages_of(ours)
        with ours, contextlib.suppress(OSError):
            for number, part in enumerate(script):
                for piece in part:
                    ours.sendall(piece)
                if number == len(script) - 1:
                    return
                message = next(messages, None)
                if message is None or message.opcode is OpCode.HANGUP:
                    return

    thread = threading.Thread(target=play)
    thread.start()
    try:
        yield theirs
    finally:
        thread.join(20)
        assert not thread.is_alive()
