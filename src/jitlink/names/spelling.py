"""Spelling suggestions: the candidate that is most similar to a name that does not exist.

`difflib` compares best, but takes some ten microseconds per pair of names. It is applied only to
the few candidates of similar length that share most pairs of letters with the name.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from heapq import nlargest

_COMPARED = 24
"""How many names are compared in full."""
_LONGEST = 1024


def closest_spelling(name: str, candidates: Iterable[str], cutoff: float = 0.75) -> str | None:
    """The candidate that is most similar to a name, or None if none is similar enough.

    Args:
        name: the name; it is not a candidate itself.
        candidates: the names to choose from.
        cutoff: the least `difflib.SequenceMatcher.ratio` of the two names.
    """
    if not 2 <= len(name) <= _LONGEST:
        return None
    # Imported only for error messages.
    from difflib import get_close_matches  # noqa: PLC0415

    # The lengths alone put the ratio of other names below the cutoff.
    shortest = len(name) * cutoff / (2 - cutoff)
    longest = len(name) * (2 - cutoff) / cutoff
    near = [other for other in candidates if shortest <= len(other) <= longest and other != name]
    pairs = _pairs(name)
    if len(near) > _COMPARED:
        near = nlargest(_COMPARED, near, key=lambda other: len(pairs & _pairs(other)))
    found = get_close_matches(name, sorted(set(near)), 1, cutoff)
    return found[0] if found else None


def _pairs(name: str) -> set[tuple[str, str]]:
    return set(itertools.pairwise(name))
