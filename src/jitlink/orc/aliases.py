"""Aliases and re-exports: names that stand for symbols defined under other names or elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from jitlink.errors import UndefinedSymbolError
from jitlink.orc.errors import SessionError
from jitlink.orc.generators import NameFilter, matcher
from jitlink.orc.interface import (
    JITDylibLookupFlags,
    JITSymbolFlags,
    LookupKind,
    MaterializationUnit,
    SymbolDependenceGroup,
    SymbolState,
)
from jitlink.orc.lookup import look_up
from jitlink.orc.materialization import MaterializationResponsibility

if TYPE_CHECKING:
    from jitlink.orc.dylib import JITDylib

_ALL = JITDylibLookupFlags.MATCH_ALL_SYMBOLS
_EXPORTED_ONLY = JITDylibLookupFlags.MATCH_EXPORTED_ONLY

# What each alias that is being made waits for; touched on the sessions' threads only.
_waiting: WeakKeyDictionary[JITDylib, dict[str, tuple[JITDylib, str]]] = WeakKeyDictionary()


class AliasCycleError(SessionError):
    """Aliases that stand for each other and for nothing else.

    Attributes:
        names: the aliases, each of which stands for the next, the last one for the first.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        super().__init__("aliases in a circle: " + " -> ".join([*self.names, self.names[0]]))


class ReExports(MaterializationUnit):
    """Promises of names that stand for others.

    Only what the aliases that are looked up stand for is made; the others stay promises.

    Args:
        aliases: for each new name the name that it stands for, alone for an exported alias, or
            with the flags of the alias.
        source: where those are; by default they are searched as code in the JITDylib of the
            aliases would search for them.
        lookup_flags: what is looked at in the source.
    """

    def __init__(
        self,
        aliases: Mapping[str, str | tuple[str, JITSymbolFlags]],
        source: JITDylib | None = None,
        lookup_flags: JITDylibLookupFlags = _ALL,
    ) -> None:
        self.name = "<re-exports>" if source else "<aliases>"
        self.source = source
        self._lookup_flags = lookup_flags
        pairs = {
            alias: (given, JITSymbolFlags.EXPORTED) if isinstance(given, str) else given
            for alias, given in aliases.items()
        }
        self._targets = {alias: target for alias, (target, _) in pairs.items()}
        self.symbols = {alias: flags for alias, (_, flags) in pairs.items()}

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        """Look up what the aliases stand for.

        Raises:
            AliasCycleError: aliases stand for each other.
            UndefinedSymbolError: what an alias stands for is not defined.
        """
        dylib = responsibility.dylib
        source = self.source or dylib
        self._put_back(responsibility)
        aliases = list(responsibility.symbols)
        targets = {alias: self._target(responsibility, alias) for alias in aliases}
        waiting = _waiting.setdefault(dylib, {})
        waiting |= {alias: (source, target) for alias, target in targets.items()}
        try:
            for alias in aliases:
                _check_circle(dylib, alias)
            found = await look_up(
                dylib.session,
                # LLVM differs: there, an alias is for what the JITDylib itself has.
                dylib.link_order if self.source is None else [(source, self._lookup_flags)],
                dict.fromkeys(targets.values(), True),
                SymbolState.RESOLVED,
                LookupKind.STATIC,
            )
        except UndefinedSymbolError as error:
            from jitlink.orc.suggestions import suggestions  # noqa: PLC0415 - only for errors

            raise UndefinedSymbolError(
                error.names, referrers=_users(targets), suggestions=suggestions(error.names, dylib)
            ) from error
        finally:
            for alias in aliases:
                waiting.pop(alias, None)
        addresses = {alias: found[target].addresses[target] for alias, target in targets.items()}
        responsibility.notify_resolved(addresses)
        responsibility.notify_emitted(
            [
                SymbolDependenceGroup({alias}, {found[name].dylib: {name}})
                for alias, name in targets.items()
            ]
        )

    def _put_back(self, responsibility: MaterializationResponsibility) -> None:
        """Promise again what nobody has asked for."""
        requested = responsibility.requested_symbols
        rest = {
            alias: (self._targets[alias], flags)
            for alias, flags in responsibility.symbols.items()
            if alias not in requested
        }
        if requested and rest:
            responsibility.replace(ReExports(rest, self.source, self._lookup_flags))

    def _target(self, responsibility: MaterializationResponsibility, alias: str) -> str:
        """What an alias stands for, past others that are made with it."""
        path = [alias]
        target = self._targets[alias]
        while self.source in {None, responsibility.dylib} and responsibility.defines(target):
            if target in path:
                raise AliasCycleError(path[path.index(target) :])
            path.append(target)
            target = self._targets[target]
        return target


def _users(targets: Mapping[str, str]) -> dict[str, list[str]]:
    """For each name the aliases that stand for it."""
    users: dict[str, list[str]] = {}
    for alias, target in targets.items():
        users.setdefault(target, []).append(f"alias {alias}")
    return users


def _check_circle(dylib: JITDylib, alias: str) -> None:
    """Refuse to wait for what waits for this alias."""
    path = [(dylib, alias)]
    while True:
        where, name = path[-1]
        following = _waiting.get(where, {}).get(name)
        if following is None:
            return
        if following in path:
            raise AliasCycleError([each for _, each in path[path.index(following) :]])
        path.append(following)


class ReExportsGenerator:
    """Names that another JITDylib has, under the same names.

    Args:
        source: where they are.
        allow: which names may come from there; by default all.
        lookup_flags: what is looked at there, by default what it exports.
    """

    def __init__(
        self,
        source: JITDylib,
        allow: NameFilter | None = None,
        lookup_flags: JITDylibLookupFlags = _EXPORTED_ONLY,
    ) -> None:
        self.source = source
        self._allow = matcher(allow)
        self._lookup_flags = lookup_flags

    async def try_to_generate(
        self,
        kind: LookupKind,
        dylib: JITDylib,
        flags: JITDylibLookupFlags,  # noqa: ARG002 - part of the interface
        names: Mapping[str, bool],
    ) -> None:
        """Define aliases for the names that the other JITDylib has."""
        wanted = [name for name in names if self._allow(name)]
        order = [(self.source, self._lookup_flags)]
        offered = await dylib.session.lookup_flags_async(
            order, dict.fromkeys(wanted, False), kind=kind
        )
        aliases = {
            name: (name, given) for name, given in offered.items() if name not in dylib.symbols
        }
        if aliases:
            dylib.add_unit(ReExports(aliases, self.source, self._lookup_flags))
