"""The package imports its names on first use."""

import importlib

import pytest

from jitlink import orc


def test_every_public_name_has_a_home() -> None:
    assert set(orc._HOMES) == set(orc.__all__)
    for name, home in orc._HOMES.items():
        assert getattr(orc, name) is getattr(importlib.import_module(home), name)


def test_other_names_are_unknown() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = orc.Nothing
