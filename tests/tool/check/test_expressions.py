"""The values of expressions, and the errors of those that cannot be evaluated.

The expected values are those of llvm-jitlink 22; `test_random_rules` compares with it.
"""

import pytest

from jitlink.tool.check.decode import Instruction
from jitlink.tool.check.expressions import ExpressionError, Place, UnknownPlaceError, evaluate

_WORD = 1 << 64
_FIRST = "'(', '*', identifier, or number"


_SYMBOLS = {
    "val": Place(0x1234, 0x500),
    "x:y$.z_1": Place(3, None),
    "_u": Place(4, 4),
    "far": Place(_WORD - 1, 8),
}


class _Linked:
    """Some symbols, a file, and memory whose every byte is the low byte of its address."""

    def symbol(self, name: str) -> Place | None:
        return _SYMBOLS.get(name)

    def section(self, file: str, name: str) -> Place:
        return self._of_file(file, {".text": 0x40, "__DATA,__data": 0x48, "": 0x50}, name)

    def got_entry(self, file: str, symbol: str) -> Place:
        return self._of_file(file, {"val": 0x60, "": 0x68}, symbol)

    def stub(self, file: str, symbol: str, kind: str) -> Place:
        return self._of_file(file, {"val": 0x70, "valkind ": 0x78, "valx)": 0}, symbol + kind)

    def _of_file(self, file: str, known: dict[str, int], name: str) -> Place:
        if file not in {"a.o", "lib x.a[1](m.o)"} or name not in known:
            raise UnknownPlaceError(f"no {name} in {file}")
        return Place(known[name], known[name])

    def load(self, address: int, size: int) -> int:
        if address == 0:
            return 0
        if address > 0x10000:
            raise UnknownPlaceError(f"nothing at {address:#x}")
        return int.from_bytes((address + n & 0xFF for n in range(size)), "little")

    def instruction(self, symbol: str, offset: int) -> Instruction | None:
        if symbol == "_u":
            return Instruction(4, "odd", None)
        return None if symbol != "val" or offset > 4 else Instruction(5, "call", (-offset, None))


def _value(text: str) -> int:
    values = evaluate(f"{text}=0", _Linked())
    assert values.right == 0
    return values.left


def _error(text: str) -> tuple[str, int]:
    with pytest.raises(ExpressionError) as caught:
        evaluate(text, _Linked())
    return str(caught.value), caught.value.offset


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # Numbers.
        ("0", 0),
        ("12", 12),
        ("0x1aF", 0x1AF),
        ("010", 8),
        ("18446744073709551615", _WORD - 1),
        ("0xffffffffffffffff", _WORD - 1),
        ("0x00000000000000000000000000000000000000000001", 1),
        # From left to right, modulo 2**64.
        ("1+2<<3", 24),
        ("0xf0|0x0f&0x3c", 0x3C),
        ("5-2-1", 2),
        ("5-(2-1)", 4),
        ("0-1", _WORD - 1),
        ("far + 2", 1),
        ("1<<63<<1", 0),
        ("far >> 63", 1),
        ("1<<64", 1),
        ("1<<65", 2),
        ("6>>65", 3),
        # White space.
        ("val + 1", 0x1235),
        ("1+ 2", 3),
        ("( val\t+  1) - val", 1),
        ("val [ 7: 0]", 0x34),
        ("(1+2) [0:0]", 1),
        ("* { 4} val - val", 0),
        # Slices.
        ("0x1234[15:8]", 0x12),
        ("1+0x1234[15:8]", 0x13),
        ("(0x1234[15:8])[3:0]", 2),
        ("0x1234[0xf:010]", 0x12),
        ("0x1234[63:0]", 0),
        ("0x1234[62:0]", 0x1234),
        ("0x1234[63:1]", 0x91A),
        ("0x1234[3:8]", 0x12),
        ("0x1234[70:64]", 0x34),
        # Symbols, and loads of their contents.
        ("x:y$.z_1 + _u", 7),
        ("*{1}val", 0x00),
        ("*{2}(val + 1)", 0x0201),
        ("*{4}val + 4", 0x07060504),
        ("(*{4}val) + 4", 0x03020104),
        ("*{8}val + 4", 0x0B0A090807060504),
        ("1+*{1}val+4", 5),
        ("*{1}val & 0xff", 0),
        ("*{3}val + 7", 7),
        ("*{5}val + 7", 7),
        ("*{6}val + 7", 0x0807),
        ("*{7}val + 7", 7),
        ("*{8}x:y$.z_1", 0),
        ("*{4}(0)", 0),
        ("*{4}(val - val)", 0),
        ("*{1}(*{1}(val + 9))", 9),
        ("val - *{1}_u", 0x1230),
        ("(*{1}_u) + val", 0x1238),
        ("(*{2}val + 1)[15:8]", 2),
        # Functions.
        ("section_addr(a.o, .text)", 0x40),
        ("section_addr ( a.o , .text )", 0x40),
        ("section_addr(a.o, __DATA,__data)", 0x48),
        ("section_addr(a.o,)", 0x50),
        ("section_addr(lib x.a[1](m.o), .text) + 1", 0x41),
        ("got_addr(a.o, val)", 0x60),
        ("got_addr(a.o, val, anything, at all)", 0x60),
        ("got_addr(a.o, )", 0x68),
        ("stub_addr(a.o, val )", 0x70),
        ("stub_addr(a.o, val,)", 0x70),
        ("stub_addr(a.o, val, kind )[3:0]", 8),
        ("next_pc(val)", 0x1239),
        ("*{1}next_pc( val )", 5),
        ("decode_operand(val, 0)", 0),
        ("decode_operand( val + 2, 0)", _WORD - 2),
        ("decode_operand(val+0x4,0)[3:0]", 12),
    ],
)  # fmt: skip
def test_values(text: str, value: int) -> None:
    assert _value(text) == value


def test_sides() -> None:
    linked = _Linked()
    assert evaluate("val = 1", linked) == (0x1234, 1)
    assert evaluate("1 =\t0x1234", linked) == (1, 0x1234)
    assert evaluate("val", linked) == (0x1234, 0x1234)


def _junk(token: str, part: str, expected: str = "") -> str:
    within = f" while parsing subexpression '{part}'" if part else ""
    return f"Encountered unexpected token '{token}'{within}" + (
        expected and f" expected {expected}"
    )


@pytest.mark.parametrize(
    ("text", "message", "offset"),
    [
        ("", "Unexpected end of expression", 0),
        ("val = ", "Unexpected end of expression", 6),
        ("val + = 1", "Unexpected end of expression", 5),
        ("1 == 1", _junk("=", "= 1", _FIRST), 3),
        ("1 = 1 # x", _junk(" ", "1 # x"), 5),
        ("1 + 2 = 3", _junk(" ", "1 + 2"), 1),
        ("val 1 = 1", _junk("1", "val 1"), 4),
        ("1 = val <> 2", _junk("<", "val <> 2"), 8),
        ("12ab", _junk("ab", "12ab"), 2),
        ("0X10", _junk("X10", "0X10"), 1),
        ("1_000", _junk("_", "1_000"), 1),
        ("-1", _junk("-", "-1", _FIRST), 0),
        ("1 = <<2", _junk("<<", "<<2", _FIRST), 4),
        ("é", _junk("é", "é", _FIRST), 0),
        ("(val = 1", _junk("", "(val", "')'"), 4),
        ("1 = (1+2 )", _junk(" ", "(1+2 )", "')'"), 8),
        ("val[15 :8]", _junk(" ", " :8]", "':'"), 6),
        ("val[15:8 ]", _junk(" ", " ]", "']'"), 8),
        ("val[x:8]", _junk("x:8", "x:8]", "number"), 4),
        ("val[3:0][1:0]", _junk("[", "val[3:0][1:0]"), 8),
        ("absent", "No known address for symbol 'absent'", 0),
        ("absent + ", "No known address for symbol 'absent'", 0),
        (
            "1 = Local",
            ("No known address for symbol 'Local' (this appears to be an assembler local label -  "
            "perhaps drop the 'L'?)"),
            4,
        ),
        ("f(1)", "No known address for symbol 'f'", 0),
        ("val(1)", _junk("(", "val(1)"), 3),
        ("*4", "Expected '{' following '*'.", 1),
        ("*{4 }val", "Missing '}' for dereference.", 3),
        ("*{0}val", "Invalid size for dereference.", 2),
        ("1 = *{9}val", "Invalid size for dereference.", 6),
        ("*{x}val", _junk("x", "x}val", "number"), 2),
        ("*{4}", "Unexpected end of expression", 4),
        ("*{4}0x20000", "nothing at 0x20000", 0),
        ("1 = *{8}(*{8}val)", "nothing at 0x706050403020100", 4),
        ("next_pc", _junk("", "", "'('"), 7),
        ("next_pc(val + 1)", _junk("+", "+ 1)", "')'"), 12),
        ("next_pc(absent)", "Cannot decode unknown symbol 'absent'", 8),
        ("next_pc(far)", "Couldn't decode instruction at 'far'", 8),
        ("decode_operand(val-1, 0)", _junk("1", "1, 0)", "'+' for offset or ',' if no offset"), 19),
        ("decode_operand(val+x, 0)", _junk("", "", "','"), 24),
        ("decode_operand(val+1 , 0)", _junk(" ", " , 0)", "','"), 20),
        ("decode_operand(val, x)", _junk("x", "x)", "number"), 20),
        ("decode_operand(val, 0 )", _junk(" ", " )", "')'"), 21),
        ("decode_operand(absent, 0)", "Cannot decode unknown symbol 'absent'", 15),
        ("decode_operand(val + 9, 0)", "Couldn't decode instruction at 'val'", 15),
        ("decode_operand(_u, 0)", "The operands of 'odd' are not known", 15),
        (
            "decode_operand(val, 2)",
            ("Invalid operand index '2' for instruction 'val'. Instruction has only 2 operands.\n"
            "Instruction is:\n  call"),
            20,
        ),
        (
            "decode_operand(val, 1)",
            "Operand '1' of instruction 'val' is not an immediate.\nInstruction is:\n  call",
            20,
        ),
        ("section_addr(a.o)", _junk("", "(a.o)", "','"), 17),
        ("section_addr(a.o, .text", _junk("", "(a.o, .text", "')'"), 23),
        ("section_addr(b.o, .text)", "no .text in b.o", 0),
        ("got_addr(a.o, 1+1)", _junk("+", "(a.o, 1+1)", "')'"), 15),
        ("1+stub_addr(a.o, val, kind", _junk("", "(a.o, val, kind", "')'"), 26),
        # In LLVM these have arbitrary values.
        ("0x", "'0x' is not a number", 0),
        ("08", "'08' is not a number", 0),
        ("1 = 18446744073709551616", "Number '18446744073709551616' does not fit 64 bits", 4),
    ],
)  # fmt: skip
def test_errors(text: str, message: str, offset: int) -> None:
    assert _error(text) == (message, offset)


@pytest.mark.parametrize("opening", ["(", "*{1}("])
def test_depth_is_limited(opening: str) -> None:
    assert _value("(" * 100 + "7" + ")" * 100) == 7
    message, _ = _error(opening * 5000)
    assert message == "Expression is nested too deeply"


def test_long_numbers() -> None:
    assert _value("0" * 10000 + "7") == 7
    assert "does not fit" in _error("9" * 10000)[0]
