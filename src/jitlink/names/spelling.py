"""Did you mean: which of many names are most like one that does not exist.

`difflib` tells best, but takes some ten microseconds for a pair. So it is asked only about the
few that share most pairs of letters with the name, of those that are about as long.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from heapq import nlargest

_COMPARED = 24
"""How many names are compared in full."""
_LONGEST = 1024


def closest_spelling(name: str, candidates: Iterable[str], cutoff: float = 0.75) -> str | None:
    """The candidate that is most like a name, or None if none is.

    Args:
        name: the name; it is not a candidate itself.
        candidates: the names there are.
        cutoff: how alike two names must be, as `difflib.SequenceMatcher.ratio` tells.
    """
    if not 2 <= len(name) <= _LONGEST:
        return None
    # Imported only for those who mistype.
    from difflib import get_close_matches  # noqa: PLC0415

    # Of names of other lengths the ratio is below the cutoff, whatever their letters are.
    shortest = len(name) * cutoff / (2 - cutoff)
    longest = len(name) * (2 - cutoff) / cutoff
    near = [each for each in candidates if shortest <= len(each) <= longest and each != name]
    pairs = _pairs(name)
    if len(near) > _COMPARED:
        near = nlargest(_COMPARED, near, key=lambda each: len(pairs & _pairs(each)))
    found = get_close_matches(name, sorted(set(near)), 1, cutoff)
    return found[0] if found else None


def _pairs(name: str) -> set[tuple[str, str]]:
    return set(itertools.pairwise(name))
