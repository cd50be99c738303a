"""Random rules, valid and broken, that do not crash llvm-jitlink.

It crashes on loads from unmapped memory and on instructions beyond memory, so addresses of loads
and offsets of instructions are chosen with care, and rules with either are not broken at random.
"""

import random

KNOWN = ("main", "data", "text", "zeros", "absolute")
_LOADABLE = ("main", "data", "text")
_OPERATORS = ("+", "-", "&", "|", "<<", ">>")
_NOISE = "()[]:+-&|<>=, 0179axzA_$.#'%;\t"
_WIDE = 64
_BROKEN = (
    "*", "*{", "*{4", "*{4}", "*{0}data", "*{9}data", "*{4 }data", "*{x}data", "*(data)", "*data",
    "{4}data", "*{4}[3:0]", "decode_operand", "decode_operand()", "decode_operand(main)",
    "decode_operand(main,)", "decode_operand(main, 0", "decode_operand(main 0)",
    "decode_operand(main-1, 0)", "decode_operand(main+, 0)", "decode_operand(main+x, 0)",
    "decode_operand(main+0x , 0)", "decode_operand(main, 0 )", "decode_operand(absent, 0)",
    "decode_operand(zeros, x)", "decode_operand(main, 77)", "decode_operand(main+17, 0)", "next_pc",
    "next_pc()", "next_pc(main+1)", "next_pc(absent)", "next_pc(main", "got_addr", "got_addr()",
    "got_addr(a.o)", "got_addr(a.o, absent)", "got_addr(b.o, far)", "got_addr(a.o, far",
    "stub_addr(a.o, main)", "stub_addr(a.o, far, kind)", "stub_addr(a.o, far, kind",
    "section_addr()", "section_addr(a.o)", "section_addr(a.o,)", "section_addr(a.o, .none)",
    "section_addr(b.o, .text)", "section_addr(a.o, .text", "Local", "-1", "~main", "!0", "'a'",
    "main[3:0][1:0]", "1 [0:0]", "12ab", "0b11", "0X10", "1_000", "main main", "f(1)", "", "()",
)  # fmt: skip


class RuleMaker:
    """Generates rules for an object ``a.o`` with the symbols `KNOWN`, and ``far`` in its GOT.

    Args:
        seed: the seed; equal seeds give equal rules.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def rule(self) -> str:
        """A rule; one in three is broken, more or less."""
        kind = self._random.randrange(9)
        if kind == 0:
            return self._broken_part()
        left, right = self._side(3), self._random.choice(["0", self._side(1)])
        rule = left + self._blank() + "=" + self._blank() + right
        if kind < 3 and "{" not in rule and "decode_operand" not in rule:
            for _ in range(self._random.choice([1, 1, 2])):
                rule = self._damaged(rule)
        return rule.strip()

    def _broken_part(self) -> str:
        part = self._random.choice(_BROKEN)
        before = self._random.choice(["", "", "main + ", "1+", "("])
        return f"{before}{part}{self._random.choice([' = 0', '=0', ' + 1 = 2'])}".strip()

    def _damaged(self, rule: str) -> str:
        place = self._random.randrange(len(rule) + 1)
        end = place + self._random.choice([0, 1])
        return rule[:place] + self._random.choice(["", self._random.choice(_NOISE)]) + rule[end:]

    def _blank(self) -> str:
        return self._random.choice(["", "", " ", " ", "  ", "\t"])

    def _side(self, depth: int) -> str:
        side, loose = self._primary(depth)
        for _ in range(self._random.choice([0, 0, 1, 1, 2, 3])):
            # A number may not be followed by a blank.
            blank = self._blank() if loose else ""
            more, loose = self._primary(depth)
            side += blank + self._random.choice(_OPERATORS) + self._blank() + more
        return side

    def _primary(self, depth: int) -> tuple[str, bool]:
        """A primary, and whether a blank may follow it."""
        choice = self._random.randrange(8 if depth else 3)
        if choice == 0:
            text, loose = self._number(), False
        elif choice <= 3:
            text, loose = self._random.choice(KNOWN), True
        elif choice == 4:
            text, loose = self._call(), True
        elif choice == 5:
            text, loose = f"({self._load()})", True
        else:
            text, loose = f"({self._blank()}{self._side(depth - 1)})", True
        if self._random.randrange(5):
            return text, loose
        blank = self._blank() if loose else ""
        high, low = self._random.randrange(_WIDE + 6), self._random.randrange(_WIDE)
        return f"{text}{blank}[{self._blank()}{high}:{self._blank()}{low}]", True

    def _number(self) -> str:
        value = self._random.choice([0, 1, 7, 8, 63, 64, 255, 1 << 31, (1 << 64) - 1])
        value = self._random.choice(
            [value, self._random.getrandbits(self._random.randrange(1, 65))]
        )
        return self._random.choice([f"{value}", f"{value:#x}", f"0x{value:X}", f"0{value:o}"])

    def _load(self) -> str:
        size = self._random.randrange(1, 9)
        where = self._random.choice(_LOADABLE)
        address = self._random.choice(
            [
                where,
                f"({where} + {self._random.randrange(8)})",
                f"{where} + {self._random.randrange(8)}",
                "zeros", "absolute", "(0)", "0", "(data&0)",
                "got_addr(a.o, far)", "section_addr(a.o, .data)",
                "next_pc(main)",
            ]
        )  # fmt: skip
        if self._random.randrange(8) == 0:
            # The memory ends with the stub's sixth byte.
            size, address = self._random.randrange(1, 5), "stub_addr(a.o, far)"
        blanks = [self._blank() for _ in range(3)]
        return f"*{blanks[0]}{{{blanks[1]}{size}}}{blanks[2]}{address}"

    def _call(self) -> str:
        first, second = self._blank(), self._blank()
        return self._random.choice(
            [
                f"next_pc({first}main{second})",
                f"decode_operand(main,{first}0)",
                f"decode_operand(main +{first}5,{second}{self._random.randrange(6)})",
                f"decode_operand(text{second},{first}{self._random.randrange(4)})",
                f"got_addr(a.o,{first}far{second})",
                f"stub_addr(a.o,{first}far{second})",
                f"section_addr(a.o,{first}.data{second})",
                f"section_addr(a.o,{first}.text)",
                f"section_addr({second}a.o{first}, $__GOT)",
            ]
        )
