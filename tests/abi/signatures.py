"""Random C functions as C source.

Some store what they get and return what they are told to; others call a function with what they are
told to, and store what it returns.
"""

import ctypes as c
import random
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

CType = Any
_INTEGERS: dict[CType, str] = {
    c.c_bool: "_Bool",
    c.c_int8: "signed char",
    c.c_uint8: "unsigned char",
    c.c_int16: "short",
    c.c_uint16: "unsigned short",
    c.c_int32: "int",
    c.c_uint32: "unsigned",
    c.c_int64: "long",
    c.c_uint64: "unsigned long",
    c.c_void_p: "void *",
}
_FLOATS: dict[CType, str] = {c.c_float: "float", c.c_double: "double"}
_SCALARS = {**_INTEGERS, **_FLOATS}
_LARGEST, _SLOT = 40, 8
ROOM = 4096
"""Bytes of the variable in which a function stores its arguments one after the other."""


class Signature(NamedTuple):
    """A function.

    Attributes:
        name: its name.
        result: type of its result, or None.
        parameters: types of its parameters.
        variadic: types of the arguments after these; None if it is not variadic.
    """

    name: str
    result: CType
    parameters: Sequence[CType]
    variadic: Sequence[CType] | None

    @property
    def arguments(self) -> list[CType]:
        """Types of all arguments."""
        return [*self.parameters, *(self.variadic or ())]


class Generator:
    """Makes signatures and values; equal seeds make equal ones.

    Args:
        seed: the seed.
        has_empty: whether structs may have empty ones as members, of which ctypes makes no
            callbacks.
    """

    def __init__(self, seed: int, *, has_empty: bool = False) -> None:
        self._random = random.Random(seed)
        self._has_empty = has_empty
        self._count = 0

    def signature(self) -> Signature:
        """A random signature."""
        choose = self._random
        self._count += 1
        parameters = [self._type() for _ in range(choose.choice((0, 1, 2, 3, 5, 8, 12, 20)))]
        variadic = None
        if choose.random() < 0.15:
            parameters = [c.c_int32, *parameters[:3]]
            variadic = [self._promoted() for _ in range(choose.randrange(14))]
        result = None if choose.random() < 0.1 else self._type()
        return Signature(f"f{self._count}", result, parameters, variadic)

    def callback(self) -> Signature:
        """A random signature that ctypes makes a C function of, for a Python function."""
        result = self._random.choice([None, *_SCALARS])
        return self.signature()._replace(result=result, variadic=None)

    def bits(self, size: int) -> bytes:
        """Random bytes."""
        return self._random.randbytes(size)

    def _promoted(self) -> CType:
        """A type that a variadic argument can have."""
        kinds = [c.c_int32, c.c_uint64, c.c_double, c.c_void_p]
        return self._random.choice([*kinds, self._struct()])

    def _type(self) -> CType:
        number = self._random.random()
        if number < 0.3:
            return self._random.choice(list(_INTEGERS))
        if number < 0.5:
            return self._random.choice(list(_FLOATS))
        return self._struct()

    def _struct(self) -> CType:
        choose = self._random
        if choose.random() < 0.3:
            return self._homogeneous()
        if choose.random() < 0.2:
            return self._made([choose.choice(list(_INTEGERS)) * choose.randint(1, 5)])
        if choose.random() < 0.2:
            return self._pair()
        while True:
            fields = [self._field() for _ in range(choose.randint(1, 6))]
            found = self._made(fields, c.Union if choose.random() < 0.1 else c.Structure)
            if c.sizeof(found) <= _LARGEST:
                return found

    def _field(self) -> CType:
        choose = self._random
        kind = choose.choice(list(_SCALARS))
        if choose.random() < 0.15:
            return kind * choose.randint(1, 3)
        if choose.random() < 0.1:
            inner = self._made([kind, choose.choice(list(_SCALARS))])
            return inner * choose.randint(1, 2) if choose.random() < 0.3 else inner
        if self._has_empty and choose.random() < 0.05:
            return self._made([])
        return kind

    def _homogeneous(self) -> CType:
        """A struct of one to five floating-point members of one type."""
        choose = self._random
        kind, count = choose.choice(list(_FLOATS)), choose.randint(1, 5)
        shape = choose.randrange(4)
        if shape == 0:
            return self._made([kind * count])
        if shape == 1 and count > 1:
            return self._made([self._made([kind] * (count - 1)), kind])
        if shape == 2:
            return self._made([kind * count, self._made([kind])], c.Union)
        return self._made([kind] * count)

    def _pair(self) -> CType:
        """A struct of two scalars, of which one is floating-point, flat or not."""
        choose = self._random
        first, second = choose.choice(list(_FLOATS)), choose.choice(list(_SCALARS))
        fields = [first, second] if choose.random() < 0.5 else [second, first]
        shapes = [fields, [self._made(fields)], [self._made(fields[:1]), fields[1] * 1]]
        return self._made(choose.choice(shapes))

    def _made(self, fields: Sequence[CType], base: CType = c.Structure) -> CType:
        self._count += 1
        attributes: dict[str, object] = {"_fields_": [(f"m{n}", f) for n, f in enumerate(fields)]}
        if base is c.Structure and self._random.random() < 0.1:
            # Python 3.14 asks for the layout of packed structs to be named; it is the same without.
            attributes |= {"_pack_": 1, "_layout_": "ms"}
        return type(f"T{self._count}", (base,), attributes)

    def value(self, kind: CType) -> Any:  # noqa: ANN401 - an object of that type
        """A random value of a type."""
        choose = self._random
        if kind in _INTEGERS:
            return kind(choose.getrandbits(64))
        if kind in _FLOATS:
            return kind(choose.randint(-(1 << 20), 1 << 20) / 8)
        made = kind()
        for name, field in kind._fields_:
            if issubclass(field, c.Array):
                elements = getattr(made, name)
                for place in range(field._length_):
                    elements[place] = self.value(field._type_)
            else:
                setattr(made, name, self.value(field))
        return made


def source_of(signatures: Sequence[Signature]) -> str:
    """C source of the functions."""
    structs: dict[CType, str] = {}
    functions = [_function(each, structs) for each in signatures]
    head = f"#include <stdarg.h>\n#include <string.h>\nunsigned char seen[{ROOM}], answer[64];\n"
    return head + "".join(structs.values()) + "".join(functions)


def source_of_callers(signatures: Sequence[Signature]) -> str:
    """C source of functions that call a function pointer of each signature."""
    structs: dict[CType, str] = {}
    functions = [_caller(each, structs) for each in signatures]
    head = f"#include <string.h>\nunsigned char given[{ROOM}], answer[64];\n"
    return head + "".join(structs.values()) + "".join(functions)


def _caller(signature: Signature, structs: dict[CType, str]) -> str:
    lines, arguments = [], []
    for number, place in _places(signature):
        kind = signature.parameters[number]
        name = _name(kind, structs)
        # The bits of a register behind a small integer are not specified: they are random.
        is_small = kind in _INTEGERS and kind is not c.c_bool and c.sizeof(kind) < _SLOT
        lines.append(f"  {'unsigned long' if is_small else name} a{number};")
        lines.append(f"  memcpy(&a{number}, given + {place}, sizeof a{number});")
        arguments.append(f"({name})a{number}" if is_small else f"a{number}")
    call = f"callback({', '.join(arguments)});"
    result = "void" if signature.result is None else _name(signature.result, structs)
    if signature.result is None:
        lines.append(f"  {call}")
    else:
        lines.append(f"  {result} r = {call}\n  memcpy(answer, &r, sizeof r);")
    types = ", ".join(_name(each, structs) for each in signature.parameters) or "void"
    body = "\n".join(lines)
    return f"void {signature.name}({result} (*callback)({types})) {{\n{body}\n}}\n"


def packed(signature: Signature, values: Sequence[Any], behind: bytes) -> bytes:
    """The arguments that a caller passes, and between them other bytes."""
    content = bytearray(behind)
    for (_, place), value in zip(_places(signature), values, strict=True):
        content[place : place + c.sizeof(value)] = bytes(value)
    return bytes(content)


def _function(signature: Signature, structs: dict[CType, str]) -> str:
    names = [
        f"{_name(kind, structs)} a{number}" for number, kind in enumerate(signature.parameters)
    ]
    lines = [f"  memcpy(seen + {place}, &a{n}, sizeof a{n});" for n, place in _places(signature)]
    if signature.variadic is not None:
        fixed = len(signature.parameters)
        names.append("...")
        lines[fixed:] = [
            f"  {_name(kind, structs)} a{n} = va_arg(more, {_name(kind, structs)});\n{lines[n]}"
            for n, kind in enumerate(signature.variadic, fixed)
        ]
        lines.insert(fixed, f"  va_list more;\n  va_start(more, a{fixed - 1});")
        lines.append("  va_end(more);")
    result = "void" if signature.result is None else _name(signature.result, structs)
    if signature.result is not None:
        lines.append(f"  {result} r;\n  memcpy(&r, answer, sizeof r);\n  return r;")
    body = "\n".join(lines)
    return f"{result} {signature.name}({', '.join(names) or 'void'}) {{\n{body}\n}}\n"


def _places(signature: Signature) -> Iterator[tuple[int, int]]:
    """The number of each argument, and where it is stored."""
    place = 0
    for number, kind in enumerate(signature.arguments):
        yield number, place
        place += -(-c.sizeof(kind) // _SLOT) * _SLOT


def stored(signature: Signature, seen: bytes) -> list[Any]:
    """The arguments that a function has stored."""
    return [
        signature.arguments[number].from_buffer_copy(seen, place)
        for number, place in _places(signature)
    ]


def _name(kind: CType, structs: dict[CType, str]) -> str:
    """How C calls a type; defines it if it is a struct."""
    if kind in _SCALARS:
        return _SCALARS[kind]
    word = "union" if issubclass(kind, c.Union) else "struct"
    if kind not in structs:
        fields = "".join(_declare(name, field, structs) for name, field in kind._fields_)
        packed = "__attribute__((packed)) " if hasattr(kind, "_pack_") else ""
        structs[kind] = f"{word} {packed}{kind.__name__} {{ {fields}}};\n"
    return f"{word} {kind.__name__}"


def _declare(name: str, kind: CType, structs: dict[CType, str]) -> str:
    if issubclass(kind, c.Array):
        return f"{_name(kind._type_, structs)} {name}[{kind._length_}]; "
    return f"{_name(kind, structs)} {name}; "


def content(value: Any) -> list[bytes]:  # noqa: ANN401 - a ctypes object, or what stands for it
    """The bytes of a value without those of its padding, which functions need not keep."""
    if isinstance(value, c.Structure | c.Union):
        data = bytes(value)
        return [data[place : place + size] for place, size in _scalars(type(value), 0)]
    return [repr(getattr(value, "value", value)).encode()]


def _scalars(kind: CType, place: int) -> Iterator[tuple[int, int]]:
    """Places and sizes of the scalars in a type."""
    if issubclass(kind, c.Array):
        size = c.sizeof(kind._type_)
        for number in range(kind._length_):
            yield from _scalars(kind._type_, place + number * size)
    elif issubclass(kind, c.Structure | c.Union):
        for name, field in kind._fields_:
            yield from _scalars(field, place + getattr(kind, name).offset)
    else:
        yield place, c.sizeof(kind)
