"""The values of jitlink-check expressions, exactly as llvm-jitlink computes them.

A rule has two sides that must have one value. Operators have no precedence: a side is evaluated
from left to right while it is parsed, so the first of several errors is reported.

Values are unsigned numbers of 64 bits. Within a load, ``*{SIZE}ADDRESS``, an absolute symbol, which
has no content, is 0, and a load from address 0 gives 0.

Quirks, all of them LLVM's: the address of a load extends over all operators that follow. White
space may follow everything but a number. A slice of all 64 bits, ``[63:0]``, is 0, because shift
counts are taken modulo 64. Loads of 3, 5 and 7 bytes read one, loads of 6 read two.

LLVM differs: it crashes on a load from unmapped memory; it gives an arbitrary value to numbers
that do not fit 64 bits or lack a digit, and takes the low 32 bits of an operand's index. Here
these are errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, TypeVar

from jitlink.errors import JITLinkError
from jitlink.graph.columns import ADDRESS_MASK
from jitlink.tool.check.rules import SPACE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jitlink.tool.check.decode import Instruction

T = TypeVar("T")
_SYMBOL = re.compile(r"[0-9A-Za-z_.$:]*")
_NUMBER = re.compile(r"0x[0-9a-fA-F]*|[0-9]*")
_OPERATOR = re.compile(r"<<|>>|[-+&|]")
_SPACES = frozenset(SPACE)
_DEEPEST = 100
"""The maximum nesting of parentheses and loads."""

_LOADED_SIZES = {1: 1, 2: 2, 3: 1, 4: 4, 5: 1, 6: 2, 7: 1, 8: 8}
"""The number of bytes that are read, by the size in the rule."""

_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: (a + b) & ADDRESS_MASK,
    "-": lambda a, b: (a - b) & ADDRESS_MASK,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "<<": lambda a, b: (a << b % 64) & ADDRESS_MASK,
    ">>": lambda a, b: a >> b % 64,
}


class ExpressionError(JITLinkError):
    """An expression that cannot be evaluated.

    Attributes:
        offset: the offset of the error in the expression, in characters.
    """

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


class UnknownPlaceError(JITLinkError):
    """A file, section, symbol or address in an expression that was not linked."""


class Place(NamedTuple):
    """A place in linked memory.

    Attributes:
        address: its address.
        content: the address to load its content from; None if it has none.
    """

    address: int
    content: int | None


class Linked(Protocol):
    """The lookups that expressions need.

    All methods but `symbol` raise `UnknownPlaceError` if the lookup fails.
    """

    def symbol(self, name: str) -> Place | None:
        """The place of a symbol, or None."""

    def section(self, file: str, name: str) -> Place:
        """The place of a file's part of a section."""

    def got_entry(self, file: str, symbol: str) -> Place:
        """The place of the GOT entry that a file uses for a symbol."""

    def stub(self, file: str, symbol: str, kind: str) -> Place:
        """The place of the stub that a file uses for a symbol, its kind containing `kind`."""

    def load(self, address: int, size: int) -> int:
        """The number in `size` bytes at an address, in the byte order of the target."""

    def instruction(self, symbol: str, offset: int) -> Instruction | None:
        """The instruction at an offset from a symbol, in bytes, or None if there is none."""


class Values(NamedTuple):
    """The values of the two sides of a rule."""

    left: int
    right: int


def evaluate(text: str, linked: Linked) -> Values:
    """The values of both sides of a rule; without ``=`` both are the value of the whole rule.

    Args:
        text: the rule, without white space around it.
        linked: the links that it is about.

    Raises:
        ExpressionError: it cannot be evaluated.
    """
    cut = text.find("=")
    if cut < 0:
        value = _Side(text, 0, linked).value()
        return Values(value, value)
    left = _Side(text[:cut].rstrip(SPACE), 0, linked).value()
    right = text[cut + 1 :].lstrip(SPACE)
    return Values(left, _Side(right, len(text) - len(right), linked).value())


class _Side:
    """The parser of one side of a rule.

    Args:
        text: the side, without white space around it.
        start: its offset in the rule.
        linked: the links that it is about.
    """

    def __init__(self, text: str, start: int, linked: Linked) -> None:
        self._text = text
        self._start = start
        self._linked = linked
        self._position = 0
        self._depth = 0
        self._in_load = False
        self._lacks_content = False

    def value(self) -> int:
        """The value of the whole side."""
        value = self._chain()
        if self._position < len(self._text):
            raise self._unexpected("", 0)
        return value

    # Operators and operands

    def _chain(self) -> int:
        """Primaries connected by operators."""
        value = self._sliced()
        while match := _OPERATOR.match(self._text, self._position):
            self._position = match.end()
            self._skip_space()
            value = _OPERATORS[match[0]](value, self._sliced())
        return value

    def _sliced(self) -> int:
        """A primary, and the slice that may follow it."""
        value = self._primary()
        return self._slice(value) if self._takes("[") else value

    def _primary(self) -> int:
        first = self._text[self._position : self._position + 1]
        if not first:
            raise self._error("Unexpected end of expression")
        if first == "(":
            return self._group()
        if first == "*":
            return self._load()
        if first == "_" or (first.isascii() and first.isalpha()):
            return self._named()
        if first in "0123456789":
            return self._number()
        raise self._unexpected("'(', '*', identifier, or number", self._position)

    def _group(self) -> int:
        start = self._position
        self._takes("(")
        with self._nested():
            value = self._chain()
        self._expect(")", start)
        return value

    @contextmanager
    def _nested(self) -> Iterator[None]:
        if self._depth == _DEEPEST:
            raise self._error("Expression is nested too deeply")
        self._depth += 1
        yield
        self._depth -= 1

    def _slice(self, value: int) -> int:
        high = self._number()
        self._expect(":")
        low = self._number()
        self._expect("]")
        mask = (1 << (high - low + 1) % 64) - 1
        return value >> low % 64 & mask

    def _load(self) -> int:
        start = self._position
        self._takes("*")
        if not self._takes("{"):
            raise self._error("Expected '{' following '*'.")
        place = self._position
        size = self._number()
        if size not in _LOADED_SIZES:
            raise self._error("Invalid size for dereference.", place)
        if not self._takes("}"):
            raise self._error("Missing '}' for dereference.")
        was_in_load, self._in_load, self._lacks_content = self._in_load, True, False
        with self._nested():
            address = self._chain()
        self._in_load = was_in_load
        if address == 0 and self._lacks_content:
            return 0
        return self._look_up(start, lambda: self._linked.load(address, _LOADED_SIZES[size]))

    def _number(self) -> int:
        start = self._position
        match = _NUMBER.match(self._text, start)
        text = match[0] if match else ""
        if not text:
            raise self._unexpected("number", start)
        self._position += len(text)
        if text == "0x" or re.fullmatch("0[0-7]*[89][0-9]*", text):
            raise self._error(f"'{text}' is not a number", start)
        digits = text.removeprefix("0x").lstrip("0")
        base = 16 if text.startswith("0x") else 8 if text.startswith("0") else 10
        # Python refuses decimal numbers of thousands of digits.
        value = ADDRESS_MASK + 1 if len(digits) > 22 else int(text, base)
        if value > ADDRESS_MASK:
            raise self._error(f"Number '{text}' does not fit 64 bits", start)
        return value

    # Symbols and functions

    def _named(self) -> int:
        start = self._position
        name = self._symbol()
        function = self._FUNCTIONS.get(name)
        if function is not None:
            return function(self, start)
        place = self._linked.symbol(name)
        if place is None:
            hint = ""
            if name.startswith("L"):
                hint = " (this appears to be an assembler local label -  perhaps drop the 'L'?)"
            raise self._error(f"No known address for symbol '{name}'{hint}", start)
        return self._of(place)

    def _of(self, place: Place) -> int:
        if not self._in_load:
            return place.address
        # What has no content is at address zero, where zeros are loaded, as LLVM does.
        self._lacks_content |= place.content is None
        return place.content or 0

    def _symbol(self) -> str:
        match = _SYMBOL.match(self._text, self._position)
        name = match[0] if match else ""
        self._position += len(name)
        self._skip_space()
        return name

    def _next_pc(self, _start: int) -> int:
        self._expect("(")
        place, name = self._position, self._symbol()
        where = self._code(place, name)
        self._expect(")")
        return (self._of(where) + self._instruction(place, name, 0).size) & ADDRESS_MASK

    def _decode_operand(self, _start: int) -> int:
        self._expect("(")
        place, name = self._position, self._symbol()
        self._code(place, name)
        offset = self._offset()
        self._expect(",")
        index_place = self._position
        index = self._number()
        self._expect(")")
        instruction = self._instruction(place, name, offset)
        operands = self._look_up(place, instruction.known_operands)
        shown = f"\nInstruction is:\n  {instruction.text}"
        if index >= len(operands):
            raise self._error(
                f"Invalid operand index '{index}' for instruction '{name}'. Instruction has only "
                f"{len(operands)} operands.{shown}",
                index_place,
            )
        value = operands[index]
        if value is None:
            raise self._error(
                f"Operand '{index}' of instruction '{name}' is not an immediate.{shown}",
                index_place,
            )
        return value & ADDRESS_MASK

    def _offset(self) -> int:
        """The offset of an instruction from the symbol."""
        match = _OPERATOR.match(self._text, self._position)
        if match is None:
            return 0
        self._position = match.end()
        self._skip_space()
        if match[0] != "+":
            raise self._unexpected("'+' for offset or ',' if no offset", self._position)
        if not re.match("[0-9]", self._text[self._position :]):
            # LLVM reports this as the end of the rule.
            raise self._unexpected_end("','", len(self._text))
        return self._number()

    def _code(self, place: int, name: str) -> Place:
        where = self._linked.symbol(name)
        if where is None:
            raise self._error(f"Cannot decode unknown symbol '{name}'", place)
        return where

    def _instruction(self, place: int, name: str, offset: int) -> Instruction:
        instruction = self._look_up(place, lambda: self._linked.instruction(name, offset))
        if instruction is None:
            raise self._error(f"Couldn't decode instruction at '{name}'", place)
        return instruction

    def _got_addr(self, start: int) -> int:
        file, symbol, _kind = self._entry()
        return self._of(self._look_up(start, lambda: self._linked.got_entry(file, symbol)))

    def _stub_addr(self, start: int) -> int:
        file, symbol, kind = self._entry()
        return self._of(self._look_up(start, lambda: self._linked.stub(file, symbol, kind)))

    def _entry(self) -> tuple[str, str, str]:
        """The arguments of a function about GOT entries or stubs: file, symbol, kind."""
        start, file = self._file()
        symbol, kind = self._symbol(), ""
        if self._takes(","):
            kind = self._up_to(")", "')'", start)
        self._expect(")", start)
        return file, symbol, kind

    def _section_addr(self, start: int) -> int:
        opened, file = self._file()
        section = self._up_to(")", "')'", opened).rstrip(SPACE)
        self._expect(")", opened)
        return self._of(self._look_up(start, lambda: self._linked.section(file, section)))

    _FUNCTIONS: ClassVar[dict[str, Callable[[_Side, int], int]]] = {
        "decode_operand": _decode_operand,
        "next_pc": _next_pc,
        "got_addr": _got_addr,
        "stub_addr": _stub_addr,
        "section_addr": _section_addr,
    }

    def _file(self) -> tuple[int, str]:
        """The offset of the arguments of a function, and the first argument."""
        start = self._position
        self._expect("(")
        file = self._up_to(",", "','", start).rstrip(SPACE)
        self._expect(",", start)
        return start, file

    # Characters

    def _skip_space(self) -> None:
        while self._text[self._position : self._position + 1] in _SPACES:
            self._position += 1

    def _takes(self, character: str) -> bool:
        """Skip a character and the white space after it, if it is next."""
        if not self._text.startswith(character, self._position):
            return False
        self._position += 1
        self._skip_space()
        return True

    def _expect(self, character: str, start: int | None = None) -> None:
        """Skip a character that must be next.

        Args:
            character: the character.
            start: offset of the construct that the character belongs to, for the error; the
                current position if None.
        """
        if not self._takes(character):
            raise self._unexpected(f"'{character}'", self._position if start is None else start)

    def _up_to(self, character: str, expected: str, start: int) -> str:
        """The text before the next such character."""
        end = self._text.find(character, self._position)
        if end < 0:
            raise self._unexpected_end(expected, start)
        text = self._text[self._position : end]
        self._position = end
        return text

    # Errors

    def _look_up(self, place: int, lookup: Callable[[], T]) -> T:
        """The result of a lookup, whose error is reported at a place."""
        try:
            return lookup()
        except UnknownPlaceError as error:
            raise self._error(str(error), place) from error

    def _error(self, message: str, place: int | None = None) -> ExpressionError:
        return ExpressionError(message, self._start + (self._position if place is None else place))

    def _unexpected_end(self, expected: str, start: int) -> ExpressionError:
        self._position = len(self._text)
        return self._unexpected(expected, start)

    def _unexpected(self, expected: str, start: int) -> ExpressionError:
        """The error for an unexpected token.

        Args:
            expected: the expected token; empty for the end.
            start: offset of the subexpression.
        """
        part = self._text[start:]
        message = f"Encountered unexpected token '{self._token()}'"
        message += f" while parsing subexpression '{part}'" if part else ""
        return self._error(message + (f" expected {expected}" if expected else ""))

    def _token(self) -> str:
        rest = self._text[self._position :]
        if re.match("[A-Za-z]", rest):
            match = _SYMBOL.match(rest)
        elif re.match("[0-9]", rest):
            match = _NUMBER.match(rest)
        else:
            match = re.match("<<|>>|.?", rest, re.DOTALL)
        return match[0] if match else ""
