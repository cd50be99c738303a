"""The runtime in an executor: linked once, when something first needs it, and never released.

It belongs to the executor and not to a session: the process calls it at exit and when threads end,
be the session for which it was linked still open or not.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from jitlink.errors import UndefinedSymbolError
from jitlink.executor import ExecutorProcessControl
from jitlink.exports import Exports
from jitlink.graph import AllocActionPair, LinkGraph, WrapperCall
from jitlink.input_reader import InputReader
from jitlink.link import JITLinkContext, link, run_in_process
from jitlink.memory import InProcessMemoryManager, JITLinkMemoryManager
from jitlink.memory.manager import JITLinkDylib
from jitlink.passes.eh_frame import FrameSection, terminate_eh_frames
from jitlink.runtime.libraries import find_in_providers
from jitlink.runtime.objects import EXPORTS, REMOTE, SHARED, open_object
from jitlink.sps import EXECUTOR_ADDR

if TYPE_CHECKING:
    from jitlink.runtime.remote_callbacks import RemoteCallbacks

REGISTER_FRAMES = "__jitlink_register_frames"
DEREGISTER_FRAMES = "__jitlink_deregister_frames"


class Runtime:
    """The runtime of one executor.

    Attributes:
        addresses: addresses of its functions and variables.
        exports: addresses of what linked code sees, by the names that it uses.
        generation: the generation of the executor.
        callbacks: the calls of another process into Python, once there can be any.
    """

    def __init__(self, addresses: Mapping[str, int], generation: int = 0) -> None:
        self.addresses = addresses
        self.generation = generation
        # Not in a dictionary with weak keys: the calls refer to the runtime.
        self.callbacks: RemoteCallbacks | None = None
        self.exports = {name: addresses[own] for name, own in EXPORTS.items()}

    def frame_actions(self, section: FrameSection) -> AllocActionPair:
        """Allocation actions that register an `.eh_frame` section and deregister it."""

        def arguments() -> bytes:
            return EXECUTOR_ADDR.serialize(section.address)

        register, deregister = self.addresses[REGISTER_FRAMES], self.addresses[DEREGISTER_FRAMES]
        return AllocActionPair(WrapperCall(register, arguments), WrapperCall(deregister, arguments))


async def runtime_of(executor: ExecutorProcessControl) -> Runtime:
    """The runtime of an executor, linked now if it has not been.

    Raises:
        UnsupportedObjectError: there is none for the executor's target.
        JITLinkError: it could not be linked.
    """
    if executor.is_this_process:
        return _of_this_process(executor)
    runtime = linked_runtime(executor)
    if runtime is None:
        names = (*SHARED, *REMOTE)
        # In this order: memory of a process that has ended since is no memory of another one.
        memory, generation = executor.memory_manager, executor.generation
        runtime = Runtime(await _link(executor, memory, names), generation)
        other = _linked.get(executor)
        if other is not None and other.generation >= runtime.generation:
            return other
        _linked[executor] = runtime
        address = runtime.addresses["__jitlink_finalize_process"]
        executor.call_at_close(address, runtime.generation)
    return runtime


class OptionalFunctions(NamedTuple):
    """The functions of an object that is linked into an executor when something needs it.

    Attributes:
        addresses: their addresses, by name.
        generation: the generation of the executor.
    """

    addresses: Mapping[str, int]
    generation: int


async def functions_of(executor: ExecutorProcessControl, name: str) -> OptionalFunctions:
    """The functions of an object that only few need.

    Args:
        executor: an executor that is another process.
        name: one of `OPTIONAL`. The object is linked now if it has not been.

    Raises:
        UnsupportedObjectError: there is none for the executor's target.
        JITLinkError: it could not be linked.
    """
    linked = _functions.setdefault(executor, {})
    found = linked.get(name)
    if found is None or found.generation != executor.generation:
        # In this order, as for the runtime itself.
        memory, generation = executor.memory_manager, executor.generation
        found = OptionalFunctions(await _link(executor, memory, [name]), generation)
        linked[name] = found
    return found


def linked_runtime(executor: ExecutorProcessControl) -> Runtime | None:
    """The runtime of an executor if it has been linked."""
    if executor.is_this_process:
        return _own[0] if _own else None
    runtime = _linked.get(executor)
    return None if runtime is None or runtime.generation != executor.generation else runtime


_linked: WeakKeyDictionary[ExecutorProcessControl, Runtime] = WeakKeyDictionary()
_functions: WeakKeyDictionary[ExecutorProcessControl, dict[str, OptionalFunctions]]
_functions = WeakKeyDictionary()
# All executors that are this process share one.
_own: list[Runtime] = []
_lock = threading.Lock()


def _of_this_process(executor: ExecutorProcessControl) -> Runtime:
    if not _own:
        with _lock:
            if not _own:
                # Memory of its own: that of a session may be released before the process ends.
                linked = run_in_process(_link(executor, InProcessMemoryManager(), SHARED))
                _own.append(Runtime(linked))
    return _own[0]


async def _link(
    executor: ExecutorProcessControl, memory: JITLinkMemoryManager, names: Sequence[str]
) -> Mapping[str, int]:
    """Link objects of the runtime; returns the addresses of what they define."""
    builder = InputReader("<runtime>")
    builder.add([open_object(executor.triple, name) for name in names])
    builder.resolver.finish()
    graph = builder.target_graph
    config = builder.target.configure(graph)
    config.post_prune.append(_register_own_frames)
    if executor.code_map is not None:
        from jitlink.executor.code_map import LinkedGraph  # noqa: PLC0415 - not in this process

        executor.code_map.add(LinkedGraph(graph))
    context = _Context(executor)
    alloc = await link(graph, context, config, memory)
    # Never deallocated.
    alloc.release()
    return context.addresses


def _register_own_frames(graph: LinkGraph) -> None:
    """Have the runtime register its own frames, with the function that the graph itself defines."""
    register = graph.find_defined_symbol_by_name(REGISTER_FRAMES)
    for section in terminate_eh_frames(graph):

        def arguments(section: FrameSection = section) -> bytes:
            return EXECUTOR_ADDR.serialize(section.address)

        if register is not None:
            graph.alloc_actions.append(AllocActionPair(WrapperCall(register, arguments)))


class _Context(JITLinkContext):
    """Links the runtime against the executor's process."""

    dylib = JITLinkDylib("<runtime>")

    def __init__(self, executor: ExecutorProcessControl) -> None:
        self._executor = executor
        self.addresses: Mapping[str, int] = {}

    def notify_resolved(self, graph: LinkGraph) -> None:
        self.addresses = dict(Exports(graph))

    async def lookup(self, names: Mapping[str, bool]) -> Mapping[str, int]:
        addresses = await self._executor.lookup_symbols(list(names))
        found = {n: a for n, a in zip(names, addresses, strict=True) if a is not None}
        found |= await find_in_providers(self._executor, [n for n in names if n not in found])
        missing = [name for name, required in names.items() if required and name not in found]
        if missing:
            raise UndefinedSymbolError(missing)
        return found
