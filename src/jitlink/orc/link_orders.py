"""The JITDylibs that link orders lead to."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jitlink.orc.dylib import JITDylib


def walk_link_orders(
    roots: Iterable[JITDylib], among: Container[JITDylib] | None = None
) -> list[JITDylib]:
    """All JITDylibs that are reached by link orders, in post-order: each after its dependencies.

    In a cycle the JITDylib that is reached last comes first.

    LLVM differs: `getReverseDFSLinkOrder` reverses a pre-order.

    Args:
        roots: where the walk begins, in this order.
        among: the JITDylibs to visit; None visits all.
    """
    order: list[JITDylib] = []
    seen: set[JITDylib] = set()
    for root in roots:
        work = [(root, iter((root,)))]
        while work:
            dylib, others = work[-1]
            following = next(others, None)
            if following is None:
                work.pop()
                if work:
                    order.append(dylib)
            elif following not in seen and (among is None or following in among):
                seen.add(following)
                work.append((following, iter([other for other, _ in following.link_order])))
    return order
