"""Arguments, environment and name of a program in an executor that is another process.

They are placed as `jitlink.executor.program` does it in this one, as far as the executor lets its
own environment and auxiliary vector be read.
"""

from __future__ import annotations

from collections.abc import Sequence

from jitlink.executor.control import ExecutorProcessControl, PlacedArguments
from jitlink.executor.remote.errors import ProtocolError
from jitlink.executor.remote.memory_services import reserve
from jitlink.executor.remote.services import Services

_WORD = 8
_NAMES = ("program_invocation_name", "program_invocation_short_name")
_WORDS_AT_ONCE = 64
_MOST_WORDS = 1 << 20
"""More arguments, variables or other words than a process can start with."""
_STACK_END = "__libc_stack_end"
"""Where glibc has the address of what the process was started with: argc, and so on."""


class RemoteProgram:
    """Places arguments of programs.

    It belongs to the executor, and has no reference to it: without cycles an executor ends when
    it is dropped.

    Args:
        services: the executor's services.
        auxiliary: its auxiliary vector in bytes, if its memory cannot be read; empty if that is
            not known.
    """

    def __init__(self, services: Services, auxiliary: bytes) -> None:
        self._services = services
        self._auxiliary = auxiliary or bytes(2 * _WORD)
        self._is_read = services.dialect.read_buffers is None
        # Arguments and the address of the first one, by the address of the pointers to them.
        self._placed: dict[int, tuple[list[str], int]] = {}

    def arguments_at(self, argv: int) -> list[str]:
        """The arguments that were placed at an address."""
        return self._placed[argv][0]

    async def place(self, executor: ExecutorProcessControl, argv: Sequence[str]) -> PlacedArguments:
        """Place arguments, environment and auxiliary vector in a block that is never freed.

        Raises:
            ValueError: an argument contains a null character.
            ExecutorError: the executor has no memory for them, or is gone.
        """
        arguments = [argument.encode("utf-8", "surrogateescape") for argument in argv]
        if any(b"\0" in argument for argument in arguments):
            raise ValueError("an argument contains a null character")
        environment = await self._environment(executor)
        if not self._is_read:
            await self._read_auxiliary_vector(executor)
        strings = [text + b"\0" for text in (*arguments, *environment)]
        start = (len(strings) + 3) * _WORD + len(self._auxiliary)
        size, page = start + sum(map(len, strings)), executor.page_size
        block = await reserve(self._services, -(-size // page) * page)
        pointers, place = [], block + start
        for text in strings:
            pointers.append(place)
            place += len(text)
        split = len(arguments)
        words = [split, *pointers[:split], 0, *pointers[split:], 0]
        content = b"".join(each.to_bytes(_WORD, "little") for each in words)
        await executor.write_memory(block, content + self._auxiliary + b"".join(strings))
        first = block + _WORD
        self._placed[first] = list(argv), block + start
        return PlacedArguments(split, first, first + (split + 1) * _WORD)

    async def begin(self, executor: ExecutorProcessControl, argv: Sequence[str]) -> PlacedArguments:
        """`place`; the environment becomes the executor's, and the first argument its name."""
        arguments = await self.place(executor, argv)
        environ, *names = await executor.lookup_symbols(["environ", *_NAMES])
        if environ is not None:
            await _write_pointer(executor, environ, arguments.envp)
        if argv:
            text, address = (
                argv[0].encode("utf-8", "surrogateescape"),
                self._placed[arguments.argv][1],
            )
            for variable, offset in zip(names, (0, text.rfind(b"/") + 1), strict=True):
                if variable is not None:
                    await _write_pointer(executor, variable, address + offset)
        return arguments

    async def _read_auxiliary_vector(self, executor: ExecutorProcessControl) -> None:
        """Read what follows the environment that the process was started with.

        The system shows that of a child, too, but of an emulator it is not the emulated one.
        """
        self._is_read = True
        (variable,) = await executor.lookup_symbols([_STACK_END])
        if variable is None:
            return
        (start,) = await _read_words(executor, variable, 1)
        (count,) = await _read_words(executor, start, 1)
        if count < _MOST_WORDS:
            place = start + (count + 2) * _WORD
            place += (len(await _read_until_zero(executor, place)) + 1) * _WORD
            words = [*await _read_until_zero(executor, place, stride=2), 0, 0]
            self._auxiliary = b"".join(word.to_bytes(_WORD, "little") for word in words)

    async def _environment(self, executor: ExecutorProcessControl) -> list[bytes]:
        """The executor's environment, each ``NAME=value``."""
        (variable,) = await executor.lookup_symbols(["environ"])
        service = self._services.dialect.read_strings
        if variable is None or service is None:
            return []
        (place,) = await _read_words(executor, variable, 1)
        found = await _read_until_zero(executor, place) if place else []
        texts = await self._services.call(service, found)
        return [text.encode("utf-8", "surrogateescape") for text in texts]


async def _read_words(executor: ExecutorProcessControl, address: int, count: int) -> list[int]:
    data = await executor.read_memory(address, count * _WORD)
    return [int.from_bytes(data[n : n + _WORD], "little") for n in range(0, len(data), _WORD)]


async def _read_until_zero(
    executor: ExecutorProcessControl, address: int, stride: int = 1
) -> list[int]:
    """The words before the first zero.

    Args:
        executor: the executor.
        address: where they begin.
        stride: only every so many words can be that zero.

    Raises:
        ProtocolError: there is none.
    """
    found: list[int] = []
    while len(found) < _MOST_WORDS:
        # No more than there is for sure: an address that cannot be read ends the executor.
        count = min((-address % executor.page_size) // _WORD or _WORDS_AT_ONCE, _WORDS_AT_ONCE)
        found += await _read_words(executor, address, count)
        address += count * _WORD
        if 0 in found[::stride]:
            return found[: found[::stride].index(0) * stride]
    raise ProtocolError(f"the executor has more than {_MOST_WORDS} words at {address:#x}")


async def _write_pointer(executor: ExecutorProcessControl, address: int, value: int) -> None:
    await executor.write_memory(address, value.to_bytes(_WORD, "little"))
