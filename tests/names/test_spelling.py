"""Spelling suggestions: which name is found among many, and how fast."""

import difflib
import random
import time

import pytest

from jitlink.names.spelling import closest_spelling


@pytest.mark.parametrize(
    ("name", "candidates", "meant"),
    [
        ("prinft", ["printf", "main", "puts"], "printf"),
        ("_ZN3foo3barEi", ["_ZN3foo3barEv", "_ZN3foo3bazEv"], "_ZN3foo3barEv"),
        ("helper", ["other", "main"], None),
        ("a", ["b", "aa"], None),
        ("same", ["same"], None),
        ("x" * 5000, ["x" * 5001], None),
        ("name", [], None),
    ],
)
def test_closest_spelling(name: str, candidates: list[str], meant: str | None) -> None:
    assert closest_spelling(name, candidates) == meant


def test_order_of_candidates_does_not_matter() -> None:
    names = ["read_one", "read_two", "read_six"]
    assert (
        closest_spelling("read_onx", names)
        == closest_spelling("read_onx", names[::-1])
        == "read_one"
    )


@pytest.mark.serial("measures time")
def test_fast_among_many_and_as_good_as_difflib() -> None:
    chance = random.Random(5)
    stems = ["open", "close", "read", "write", "alloc", "free", "table", "index", "node", "value"]
    names = {
        "_".join(chance.choices(stems, k=4)) + str(chance.randrange(100)) for _ in range(150_000)
    }
    candidates = sorted(names)[:100_000]
    wrong = [name[:5] + name[6:] for name in chance.sample(candidates, 4)]
    for name in wrong:
        started = time.process_time()
        found = closest_spelling(name, candidates)
        assert time.process_time() - started < 1.5
        assert found is not None
        best = difflib.SequenceMatcher(None, found, name).ratio()
        assert best > 0.95
