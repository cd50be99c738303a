"""Aliases and re-exports: names for symbols that are defined under other names or elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from jitlink.errors import UndefinedSymbolError
from jitlink.orc.errors import FailedToMaterializeError, SessionError
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

# The target of each alias that is being materialized; for the driver threads.
_waiting: WeakKeyDictionary[JITDylib, dict[str, tuple[JITDylib, str]]] = WeakKeyDictionary()


class AliasCycleError(SessionError):
    """Aliases that resolve only to each other.

    Attributes:
        names: the aliases, each an alias of the next, the last one of the first.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        super().__init__("aliases in a cycle: " + " -> ".join([*self.names, self.names[0]]))


class ReExports(MaterializationUnit):
    """Aliases of symbols.

    Only the aliases that are looked up are materialized, and only their targets.

    Args:
        aliases: the target's name for each alias, alone for an exported alias, or with the
            flags of the alias.
        source: the JITDylib of the targets; by default the link order of the JITDylib of the
            aliases is searched.
        lookup_flags: which symbols of the source match.
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

    def renewed(self, symbols: Mapping[str, JITSymbolFlags]) -> ReExports:
        """The same aliases."""
        aliases = {alias: (self._targets[alias], flags) for alias, flags in symbols.items()}
        return ReExports(aliases, self.source, self._lookup_flags)

    async def materialize(self, responsibility: MaterializationResponsibility) -> None:
        """Look up the targets of the aliases.

        Raises:
            AliasCycleError: aliases resolve only to each other.
            UndefinedSymbolError: a target is not defined.
        """
        dylib = responsibility.dylib
        source = self.source or dylib
        self._return_unrequested(responsibility)
        aliases = list(responsibility.symbols)
        targets = {alias: self._target(responsibility, alias) for alias in aliases}
        waiting = _waiting.setdefault(dylib, {})
        waiting |= {alias: (source, target) for alias, target in targets.items()}
        try:
            for alias in aliases:
                _check_cycle(dylib, alias)
            found = await look_up(
                dylib.session,
                # LLVM differs: there, an alias is of a symbol that the JITDylib itself defines.
                dylib.link_order if self.source is None else [(source, self._lookup_flags)],
                dict.fromkeys(targets.values(), True),
                SymbolState.RESOLVED,
                LookupKind.STATIC,
            )
        except FailedToMaterializeError:
            raise
        except UndefinedSymbolError as error:
            from jitlink.library_search import LibrarySearch  # noqa: PLC0415 - only for errors
            from jitlink.orc.suggestions import suggestions  # noqa: PLC0415

            raise UndefinedSymbolError(
                error.names,
                referrers=_users(targets),
                suggestions=suggestions(error.names, dylib),
                search=LibrarySearch(dylib.session.executor.triple, dylib.library_directories),
            ) from None
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

    def _return_unrequested(self, responsibility: MaterializationResponsibility) -> None:
        """Return the aliases that no lookup waits for to the JITDylib."""
        requested = responsibility.requested_symbols
        rest = {
            alias: (self._targets[alias], flags)
            for alias, flags in responsibility.symbols.items()
            if alias not in requested
        }
        if requested and rest:
            responsibility.replace(ReExports(rest, self.source, self._lookup_flags))

    def _target(self, responsibility: MaterializationResponsibility, alias: str) -> str:
        """The target of an alias, past aliases that are materialized with it."""
        path = [alias]
        target = self._targets[alias]
        while self.source in {None, responsibility.dylib} and responsibility.defines(target):
            if target in path:
                raise AliasCycleError(path[path.index(target) :])
            path.append(target)
            target = self._targets[target]
        return target


def _users(targets: Mapping[str, str]) -> dict[str, list[str]]:
    """The aliases of each target."""
    users: dict[str, list[str]] = {}
    for alias, target in targets.items():
        users.setdefault(target, []).append(f"alias {alias}")
    return users


def _check_cycle(dylib: JITDylib, alias: str) -> None:
    """Refuse to wait for a symbol that waits for this alias."""
    path = [(dylib, alias)]
    while True:
        where, name = path[-1]
        following = _waiting.get(where, {}).get(name)
        if following is None:
            return
        if following in path:
            raise AliasCycleError([name for _, name in path[path.index(following) :]])
        path.append(following)


class ReExportsGenerator:
    """Re-exports symbols of another JITDylib under the same names.

    Args:
        source: the other JITDylib.
        allow: which names may be re-exported; by default all.
        lookup_flags: which of its symbols match, by default those that it exports.
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
        """Define aliases for the names that the other JITDylib defines."""
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
