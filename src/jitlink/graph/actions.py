"""Allocation actions: calls in the executor that belong to a graph's memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from jitlink.graph.elements import Symbol


class WrapperCall(NamedTuple):
    """A call of ``CWrapperFunctionResult f(const char *arguments, size_t size)``.

    `function` is a symbol or an address in the executor; `arguments` are the serialized
    arguments, or a function that serializes them once addresses are known.
    """

    function: Symbol | int
    arguments: bytes | Callable[[], bytes] = b""


class AllocActionPair(NamedTuple):
    """The calls to make when memory is finalized and when it is deallocated.

    A function that serializes the arguments of both is called once.
    """

    finalize: WrapperCall | None = None
    deallocate: WrapperCall | None = None
