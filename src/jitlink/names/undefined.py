"""The message of undefined symbols: what they are, and advice where they could come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jitlink.names.demangling import demangled, with_source_name
from jitlink.names.providers import usual_provider
from jitlink.names.versions import split

_MOST_LISTED = 20
"""How many missing names a message lists; it counts the others."""
_MOST_ADVICE = 3
"""For how many missing names a message gives advice of each kind."""
_MOST_SEARCHED = 1000
"""How many missing names are searched for advice."""

Names = Mapping[str, Sequence[str]]


def unknown_names(names: Sequence[str]) -> list[str]:
    """The first of the names without a version that no list of well-known names has."""
    unknown = [
        name
        for name in names[:_MOST_SEARCHED]
        if name and "\0" not in name and split(name) is None and usual_provider(name) is None
    ]
    return unknown[:_MOST_LISTED]


def message(
    names: Sequence[str],
    referrers: Names,
    suggestions: Mapping[str, str],
    versions: Names,
    libraries: Names,
) -> str:
    """The message.

    Args:
        names: all missing names.
        referrers: for each name, the display names of objects that refer to it.
        suggestions: for some names, a similar one that exists.
        versions: for names with a version, the versions that exist.
        libraries: for some names, libraries that define them.
    """
    noun = "symbol" if len(names) == 1 else "symbols"
    listed = ", ".join(_described(name, referrers[name]) for name in names[:_MOST_LISTED])
    if len(names) > _MOST_LISTED:
        listed += f" and {len(names) - _MOST_LISTED} more"
    advice = [*_other_versions(versions), *_similar_names(names, suggestions)]
    advice += _usual_providers(names, suggestions)
    advice += _defining_libraries(libraries)
    return "; ".join([f"undefined {noun}: {listed}", *advice])


def _described(name: str, users: Sequence[str]) -> str:
    notes = [source] if (source := demangled(name)) else []
    if users:
        more = f" and {len(users) - 1} more" if len(users) > 1 else ""
        notes.append(f"referenced by {users[0]}{more}")
    return f"{name} ({'; '.join(notes)})" if notes else name


def _other_versions(versions: Names) -> list[str]:
    """What versions of the missing versions' symbols exist."""
    known = {name.partition("@")[0]: those for name, those in versions.items()}
    return [
        f"{plain} has the versions {', '.join(those[:_MOST_LISTED])}"
        if len(those) > 1
        else f"{plain} has the version {those[0]}"
        if those
        else f"no version of {plain} exists"
        for plain, those in list(known.items())[:_MOST_ADVICE]
    ]


def _similar_names(names: Sequence[str], suggestions: Mapping[str, str]) -> list[str]:
    if len(names) == 1:
        return [f"did you mean {with_source_name(each)}?" for each in suggestions.values()]
    similar = list(suggestions.items())[:_MOST_ADVICE]
    return [f"did you mean {with_source_name(new)} for {old}?" for old, new in similar]


def _usual_providers(names: Sequence[str], suggestions: Mapping[str, str]) -> list[str]:
    libraries: dict[str, str] = {}
    for name in names[:_MOST_SEARCHED]:
        provider = None if name in suggestions else usual_provider(name)
        if provider is not None:
            libraries.setdefault(provider.where, name)
    chosen = list(libraries.items())[:_MOST_ADVICE]
    return [f"{name} is usually in {where}" for where, name in chosen]


def _defining_libraries(libraries: Names) -> list[str]:
    names: dict[str, str] = {}
    for name, those in libraries.items():
        names.setdefault(" or ".join(those), name)
    chosen = list(names.items())[:_MOST_ADVICE]
    return [f"{name} is in {where}" for where, name in chosen]
