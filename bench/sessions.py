"""The cost of a session: chains, cycles and random graphs of units that do nothing.

Prints, for each topology and size, the time per unit to add all units and to look them up,
materialized one by one and merged, and the number of groups searched for cycles.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from jitlink.orc import (
    ExecutionSession,
    JITSymbolFlags,
    MaterializationResponsibility,
    MaterializationUnit,
    SymbolDependenceGroup,
    SymbolState,
)

COUNTS = (1000, 2000, 4000)


class Node(MaterializationUnit):
    """A symbol that depends on others."""

    def __init__(self, number: int, needs: Sequence[int]) -> None:
        self.name = f"f{number}"
        self.symbols = {self.name: JITSymbolFlags.EXPORTED}
        self.needs = {f"f{each}" for each in needs if each != number}
        self.address = number

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        """Make the state transitions of a link, without linking."""
        dylib, names = responsibility.dylib, set(self.symbols)
        responsibility.notify_resolved(dict.fromkeys(names, self.address))
        state = SymbolState.RESOLVED
        await dylib.session.lookup_async(dylib.link_order, self.needs, required_state=state)
        responsibility.notify_emitted([SymbolDependenceGroup(names, {dylib: self.needs})])


class MergedNode(Node):
    """A symbol that is materialized together with others."""

    def merge_key(self) -> str:
        """All units are merged."""
        return "one"

    def merge(self, others: Sequence[MaterializationUnit]) -> MaterializationUnit:
        """One unit for all of them."""
        merged = MergedNode(0, ())
        merged.symbols = {n: f for unit in (self, *others) for n, f in unit.symbols.items()}
        return merged

    def anticipated(self) -> set[str]:
        """Its dependencies."""
        return self.needs


def _dependencies(topology: str, count: int) -> list[list[int]]:
    if topology == "chain":
        return [[number + 1] if number + 1 < count else [] for number in range(count)]
    if topology == "cycle":
        return [[(number + 1) % count] for number in range(count)]
    generator = random.Random(count)
    return [[generator.randrange(count) for _ in range(3)] for _ in range(count)]


def main() -> None:
    """Print the table."""
    print(
        f"{'topology':8} {'units are':10} {'units':>6} {'add':>9} {'look up':>9} {'searched':>9}"
        "  µs/unit"
    )
    for topology in ("chain", "cycle", "random"):
        for kind, how in ((Node, "one by one"), (MergedNode, "merged")):
            for count in COUNTS:
                with ExecutionSession() as session:
                    dylib = session.create_jitdylib("main")
                    units = [
                        kind(n, needs) for n, needs in enumerate(_dependencies(topology, count))
                    ]
                    start = time.perf_counter()
                    for unit in units:
                        dylib.define(unit)
                    added = time.perf_counter()
                    session.lookup(dylib, [unit.name for unit in units])
                    done = time.perf_counter()
                    add, look_up = (added - start) / count, (done - added) / count
                    searched = session.waiting_on_graph.searched / count
                print(f"{topology:8} {how:10} {count:6} {add * 1e6:9.1f} {look_up * 1e6:9.1f} "
                      f"{searched:9.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
