"""Finding the rules of a file."""

from pathlib import Path

import pytest

from jitlink.errors import InputError
from jitlink.tool.check.rules import find_rules, read_rules


def _texts(text: str, name: str = "jitlink-check") -> list[str]:
    return [rule.text for rule in find_rules(text, "file", name)]


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("", []),
        ("# jitlink-check: a = b", ["a = b"]),
        ("# jitlink-check: a = b  \r\n# jitlink-check:c", ["a = b", "c"]),
        (" \t\v# jitlink-check: a", ["a"]),
        ("# jitlink-check:", []),
        ("# jitlink-check: ", [""]),
        ("nop # jitlink-check: a", []),
        ("#jitlink-check: a", []),
        ("#  jitlink-check: a", []),
        ("## jitlink-check: a", []),
        ("# jitlink-check : a", []),
        ("# Jitlink-check: a", []),
        ("// jitlink-check: a", []),
        ("; jitlink-check: a", []),
        # All kinds of line ends, and none.
        ("# jitlink-check: a\r# jitlink-check: b\n\r# jitlink-check: c", ["a", "b", "c"]),
        ("# jitlink-check: a\v# jitlink-check: b", ["a\v# jitlink-check: b"]),
        # Rules of several lines.
        ("# jitlink-check: a \\\n# jitlink-check:  = b", ["a   = b"]),
        ("# jitlink-check: a\\\n\n  \t\n# jitlink-check:b", ["ab"]),
        ("# jitlink-check: a =\\\nother\n# jitlink-check: b", ["a =", "b"]),
        ("# jitlink-check: a\\\n# jitlink-check:\n", ["a"]),
        ("# jitlink-check: a\\\n# jitlink-check:b\\\n# jitlink-check:c", ["abc"]),
        ("# jitlink-check: a\\ \n# jitlink-check: b", ["a\\", "b"]),
        ("# jitlink-check: a\\\\\nother\nanother", ["a"]),
        ("# jitlink-check:\\\nother\n# jitlink-check: b", ["b"]),
        # A rule that continues at the end of the file is dropped.
        ("# jitlink-check: a\\", []),
        ("# jitlink-check: a\\\n", []),
        # A null byte at the start of a line is the end.
        ("# jitlink-check: a\n\0\n# jitlink-check: b", ["a"]),
        ("# jitlink-check: a\0\n# jitlink-check: b", ["a\0", "b"]),
    ],
)
def test_rules_of_a_text(text: str, rules: list[str]) -> None:
    assert _texts(text) == rules


def test_names() -> None:
    text = "# one: 1\n# two words: 2\n# : 3\n# two: 4"
    assert _texts(text, "one") == ["1"]
    assert _texts(text, "two words") == ["2"]
    assert _texts(text, "") == ["3"]
    assert _texts(text) == []


def test_positions() -> None:
    text = "\n\r\n  # jitlink-check:  a + \\\r\r\t# jitlink-check: b = c"
    (rule,) = find_rules(text, "file", "jitlink-check")
    assert rule.text == "a +  b = c"
    places = [(rule.position(n).line, rule.position(n).column) for n in (0, 2, 5, 9, 10)]
    assert places == [(3, 21), (3, 23), (5, 19), (5, 23), (5, 24)]
    for offset in (0, 2, 5, 9):
        _, column, line = rule.position(offset)
        assert line[column - 1] == rule.text[offset]


def test_invalid_utf8(tmp_path: Path) -> None:
    file = tmp_path / "rules"
    file.write_bytes(b"\xff\xfe\n# jitlink-check: \xc3\xa9 = \xe9\n")
    (rule,) = read_rules(str(file), "jitlink-check")
    assert rule.text == "é = \udce9"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "no", "No such file")):
        with pytest.raises(InputError, match=reason):
            list(read_rules(str(path), "jitlink-check"))
