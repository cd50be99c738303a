"""Response files: their syntax, and their expansion."""

from pathlib import Path

import pytest

from jitlink.tool.options import CommandLineError, expand
from jitlink.tool.options.response_files import split


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \t\r\n ", []),
        ("a b\nc\td\n", ["a", "b", "c", "d"]),
        ('"a b" c', ["a b", "c"]),
        ("'a b' c", ["a b", "c"]),
        ("-L'my dir'/x", ["-Lmy dir/x"]),
        (r"a\ b \\c \"d", ["a b", r"\c", '"d']),
        (r'"a\"b\\" c', [r"a\"b".replace("\\", "") + "\\", "c"]),
        (r"'a\'b'", ["a'b"]),
        ("'it''s'", ["its"]),
        ('""', [""]),
        ("a '' b", ["a", "", "b"]),
        ("'a\nb'", ["a\nb"]),
        ("'open end", ["open end"]),
        ('"open \\', ["open "]),
        ("end\\", ["end"]),
        ("\\\nx", ["\nx"]),
    ],
)
def test_split(text: str, words: list[str]) -> None:
    assert split(text) == words


def test_files_are_expanded_in_place_and_within_each_other(tmp_path: Path) -> None:
    (tmp_path / "inner").write_text("c 'd e'")
    (tmp_path / "outer").write_text(f"b @{tmp_path / 'inner'} @{tmp_path / 'inner'}")
    words = ["a", f"@{tmp_path / 'outer'}", "-args", f"@{tmp_path / 'inner'}"]
    assert list(expand(words)) == ["a", "b", "c", "d e", "c", "d e", "-args", "c", "d e"]


def test_names_of_no_file_stand_for_themselves(tmp_path: Path) -> None:
    words = ["@", f"@{tmp_path}/none", "user@host"]
    assert list(expand(words)) == words


def test_byte_order_mark_is_not_part_of_a_word(tmp_path: Path) -> None:
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbfa.o")
    assert list(expand([f"@{tmp_path / 'marked'}"])) == ["a.o"]


def test_invalid_utf8_is_preserved(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"\xff.o")
    assert list(expand([f"@{tmp_path / 'raw'}"])) == ["\udcff.o"]


@pytest.mark.parametrize("others", [0, 1, 2])
def test_cycles_are_an_error(tmp_path: Path, others: int) -> None:
    for number in range(others + 1):
        following = (number + 1) % (others + 1)
        (tmp_path / str(number)).write_text(f"a @{tmp_path / str(following)}")
    with pytest.raises(CommandLineError, match=f"response file {tmp_path}/0 includes itself"):
        list(expand([f"@{tmp_path / '0'}"]))


def test_unreadable_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CommandLineError, match=f"response file {tmp_path}: Is a directory"):
        list(expand([f"@{tmp_path}"]))


def test_binary_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"a\0b")
    with pytest.raises(CommandLineError, match="binary is not a text file"):
        list(expand([f"@{tmp_path / 'binary'}"]))
