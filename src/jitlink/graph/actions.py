"""Allocation actions: calls in the executor that go with a graph's memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jitlink.graph.elements import Symbol


@dataclass(frozen=True, slots=True)
class WrapperCall:
    """A call of ``CWrapperFunctionResult f(const char *arguments, size_t size)``.

    `function` is a symbol or an address in the executor; `arguments` are the serialized
    arguments, or a function that serializes them once addresses are known.
    """

    function: Symbol | int
    arguments: bytes | Callable[[], bytes] = b""


@dataclass(frozen=True, slots=True)
class AllocActionPair:
    """What to call when memory is finalized, and what when it is deallocated."""

    finalize: WrapperCall | None = None
    deallocate: WrapperCall | None = None
