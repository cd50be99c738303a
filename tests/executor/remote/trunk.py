"""An executor that speaks the dialect after LLVM 22: jitlink's own, whose messages are translated.

No such executor is packaged. The names and signatures of memory services are the only difference to
jitlink's, besides lookups, which return addresses without flags, and the kind in results.
"""

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

from jitlink.executor import RemoteExecutorProcessControl
from jitlink.executor.remote.channels import SocketChannel
from jitlink.executor.remote.dialects import JITLINK, LLVM_TRUNK, Service
from jitlink.executor.remote.memory_kinds import MemoryKind
from jitlink.executor.remote.messages import Message, OpCode, ResultKind
from jitlink.sps import STRING, WrapperFunctionResult
from jitlink.sps.services import SETUP, Setup
from tests.executor.remote.fake import encoded, messages_of
from tests.executor.remote.listening import PROGRAM


def _pairs(ours: Any, theirs: Any) -> Iterator[tuple[Service[Any], Service[Any]]]:  # noqa: ANN401
    """The services that two dialects, or parts of them, have both."""
    for field in fields(ours):
        one, other = getattr(ours, field.name), getattr(theirs, field.name)
        if is_dataclass(one):
            yield from _pairs(one, other)
        elif isinstance(one, Service) and isinstance(other, Service):
            yield one, other


NAMES = {
    getattr(theirs, attribute): getattr(ours, attribute)
    for ours, theirs in _pairs(JITLINK, LLVM_TRUNK)
    for attribute in ("name", "instance")
    if getattr(theirs, attribute) is not None and getattr(ours, attribute) is not None
}
"""The names of the dialect, and jitlink's."""
FAILURE = "Could not deserialize wrapper function arg data"


class _Translator:
    """Stands between a controller and jitlink's executor.

    Args:
        controller: a connected socket.
        executor: another one.
    """

    def __init__(self, controller: socket.socket, executor: socket.socket) -> None:
        self._controller, self._executor = controller, executor
        self._calls: dict[int, int] = {}
        self._addresses: dict[str, int] = {}
        self._threads = [
            threading.Thread(target=self._pass_calls),
            threading.Thread(target=self._pass_results),
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until both have ended."""
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def _pass_calls(self) -> None:
        for message in messages_of(self._controller):
            if message.opcode is OpCode.CALL_WRAPPER:
                self._calls[message.sequence] = message.tag
            is_lookup = message.tag == self._addresses.get(LLVM_TRUNK.lookup.name)
            # This dialect's takes the instance, too.
            sent = message._replace(payload=message.payload[8:]) if is_lookup else message
            self._executor.sendall(encoded(*sent))
        self._executor.shutdown(socket.SHUT_WR)

    def _pass_results(self) -> None:
        for message in messages_of(self._executor):
            self._controller.sendall(encoded(*self._translate(message)))
        self._controller.shutdown(socket.SHUT_WR)

    def _translate(self, message: Message) -> Message:
        if message.opcode is OpCode.SETUP:
            setup = SETUP.deserialize(message.payload)
            known = {ours: setup.bootstrap_symbols[ours] for ours in NAMES.values()}
            others = {
                name: address
                for name, address in setup.bootstrap_symbols.items()
                if "Shared" in name or "dispatch" in name or "Frame" in name
            }
            self._addresses = others | {theirs: known[ours] for theirs, ours in NAMES.items()}
            # The instance of a service whose counterpart has none is any address.
            symbols = self._addresses | {str(LLVM_TRUNK.lookup.instance): 1}
            payload = SETUP.serialize(Setup(setup.triple, setup.page_size, {}, symbols))
            return message._replace(payload=payload)
        if message.opcode is not OpCode.RESULT:
            return message
        called = self._calls.pop(message.sequence)
        if called == self._addresses[LLVM_TRUNK.lookup.name]:
            return message._replace(payload=_translated(message.payload))
        if not message.payload and called == self._addresses[LLVM_TRUNK.run_as_main.name]:
            failure = STRING.serialize(FAILURE)
            return message._replace(tag=ResultKind.OUT_OF_BAND_ERROR, payload=failure)
        return message


def _translated(payload: bytes) -> bytes:
    """The result of a lookup."""
    symbols = JITLINK.lookup.signature.deserialize_result(WrapperFunctionResult(payload))
    return LLVM_TRUNK.lookup.signature.serialize_result(symbols).data


@contextmanager
def trunk_executor(memory: MemoryKind) -> Iterator[RemoteExecutorProcessControl]:
    """Such an executor, until the end of the with statement."""
    pairs = [socket.socketpair() for _ in range(2)]
    (controller, theirs), (ours, executor) = pairs
    with executor:
        process = subprocess.Popen(
            [PROGRAM, f"socket:adopt={executor.fileno()}"], pass_fds=(executor.fileno(),)
        )
    translator = _Translator(theirs, ours)
    try:
        with RemoteExecutorProcessControl(
            SocketChannel(controller), memory=memory, timeout=20
        ) as control:
            yield control
        assert process.wait(20) == 0
        translator.join()
    finally:
        process.kill()
        process.wait()
        for each in (theirs, ours):
            each.close()
