"""Units that are being made: which are made together, and what happens if that fails.

Units of the same key that are needed at the same time, and those that they will ask for, are
merged and made as one: for objects, that is one link of many. If that fails, each is made by
itself, so that only what is at fault, and what depends on it, fails; unless addresses have
been handed out already, for then there is no way back.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from jitlink.errors import UndefinedSymbolError
from jitlink.orc.errors import listed
from jitlink.orc.lookup import REQUESTER
from jitlink.orc.materialization import MaterializationResponsibility, MaterializationUnit
from jitlink.orc.symbols import SymbolState

if TYPE_CHECKING:
    from jitlink.orc.definition import Definition


class Making:
    """A unit that is being made.

    Args:
        members: the units that are made as one, with the definitions that they promise.
        earlier: why they could not be made together with others.

    Attributes:
        unit: the unit, or what they were merged into.
    """

    def __init__(
        self,
        members: Mapping[MaterializationUnit, Sequence[Definition]],
        earlier: BaseException | None = None,
    ) -> None:
        first, *others = members
        self.unit = first.merge(others) if others else first
        self._members = members
        self._earlier = earlier
        self._responsibility: MaterializationResponsibility | None = None

    def __str__(self) -> str:
        names = listed(tuple(unit.name for unit in self._members))
        symbols = sum(len(each.flags) for parts in self._members.values() for each in parts)
        return f"{names} (symbols: {symbols})"

    def begin(self) -> None:
        """Turn the promises into a responsibility."""
        definitions = [each for promised in self._members.values() for each in promised]
        for definition in definitions:
            definition.unit = None
            definition.state = SymbolState.MATERIALIZING
        self._responsibility = MaterializationResponsibility(
            definitions[0].tracker, self.unit.name, definitions
        )

    async def run(self) -> None:
        """Make the definitions; whatever the unit raises is raised."""
        responsibility = self._responsibility
        if responsibility is not None:
            REQUESTER.set(responsibility)
            await self.unit.materialize(responsibility)

    def finish(self) -> None:
        """Let go of the responsibility: the unit has met it, or has handed it on."""
        self._responsibility = None
        REQUESTER.set(None)

    def fail(self, error: BaseException) -> None:
        """Fail what remains to be made."""
        responsibility = self._responsibility
        if responsibility is not None:
            responsibility.fail(self._fuller(error))
        self._forget(error)

    def _forget(self, error: BaseException) -> None:
        """Let go of the responsibility and of all that the error's traceback holds.

        The error may be kept for long. What the link had in its hands is not to be.
        """
        self.finish()
        forget_frames(error)

    def _fuller(self, error: BaseException) -> BaseException:
        """An error, or the earlier one if that names all that is missing here and more."""
        root, earlier = error, self._earlier
        while root.__cause__ is not None:
            root = root.__cause__
        if isinstance(root, UndefinedSymbolError) and isinstance(earlier, UndefinedSymbolError):
            return earlier if set(earlier.names).issuperset(root.names) else error
        return error

    @property
    def can_be_divided(self) -> bool:
        """Whether the units can be made again one by one, as if nothing had happened."""
        responsibility = self._responsibility
        if len(self._members) < 2 or responsibility is None or not responsibility.definitions:
            return False
        definitions = responsibility.definitions
        promised = {name for unit in self._members for name in unit.symbols}
        return not any(
            each.failed or each.is_announced or each.waiters or each.state > SymbolState.RESOLVED
            for each in definitions
        ) and promised.issuperset(responsibility.requested_symbols)

    def divide(self, error: BaseException) -> list[Making]:
        """Take everything back because of an error; returns each unit by itself, to be made."""
        responsibility = self._responsibility
        if responsibility is None:
            return []
        units = list(self._members)
        number_of = {name: n for n, unit in enumerate(units) for name in unit.symbols}
        members: dict[int, list[Definition]] = {}
        for definition in responsibility.give_up():
            definition.withdraw()
            for number, part in definition.divide(number_of).items():
                members.setdefault(number, []).append(part)
        # What was found while linking is found again; nobody has asked for it.
        for part in members.pop(-1, []):
            part.dylib.forget(part)
        self._forget(error)
        return [Making({units[number]: parts}, error) for number, parts in members.items()]


def forget_frames(error: BaseException) -> None:
    """Let go of what the frames hold that an error has left; for where it is caught."""
    made_by = error.__traceback__
    if made_by is not None:
        # The first frame is that of the caller, which still runs and cannot be cleared.
        error.__traceback__ = made_by.tb_next
        traceback.clear_frames(made_by.tb_next)


def gather(promised: Sequence[Definition]) -> list[Making]:
    """Units to be made, those that can be made together as one."""
    groups: dict[object, dict[MaterializationUnit, list[Definition]]] = {}
    for definition in _with_anticipated(promised):
        unit = definition.unit
        if unit is not None:
            key = unit.merge_key()
            group = (id(unit), unit) if key is None else (key, definition.tracker)
            groups.setdefault(group, {}).setdefault(unit, []).append(definition)
    return [Making(members) for members in groups.values()]


def _with_anticipated(promised: Iterable[Definition]) -> list[Definition]:
    """Definitions, the rest of what their units promise, and what those will ask for."""
    chosen = dict.fromkeys(promised)
    pending = list(chosen)
    while pending:
        definition = pending.pop()
        unit, symbols = definition.unit, definition.dylib.symbols
        if unit is None:
            continue
        others: list[Definition] = []
        if len(definition.flags) < len(unit.symbols):
            named = [symbols.get(name) for name in unit.symbols]
            others += [held for held in named if held and held.unit is unit]
        if unit.merge_key() is not None:
            named = [symbols.get(name) for name in unit.anticipated()]
            others += [h for h in named if h and h.unit and h.unit.merge_key() is not None]
        for other in others:
            if other not in chosen:
                chosen[other] = None
                pending.append(other)
    return list(chosen)
