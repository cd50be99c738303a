"""Sections, symbols and relocations of an ELF object, from the output of llvm-readobj."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from tests.toolchain import require, run


class Section(NamedTuple):
    """A section header; `number` is its index."""

    number: int
    name: str
    type: int
    flags: int
    size: int
    link: int
    info: int
    alignment: int


class Symbol(NamedTuple):
    """An entry of the symbol table; `section` is an index, or a reserved number."""

    name: str
    value: int
    size: int
    binding: int
    type: int
    other: int
    section: int


class Relocation(NamedTuple):
    """A relocation; `addend` is 0 where it is implicit."""

    section: int
    offset: int
    type: int
    symbol: int
    addend: int


class Listing(NamedTuple):
    """The sections, symbols and relocations of an object."""

    sections: list[Section]
    symbols: list[Symbol]
    relocations: list[Relocation]


def read_object(path: Path) -> Listing:
    options = ["--elf-output-style=JSON", "--sections", "--symbols", "--relocations"]
    (printed,) = json.loads(run([require("llvm-readobj-22"), *options, path]))
    sections = [_section(each["Section"]) for each in printed["Sections"]]
    return Listing(
        sections,
        [_symbol(each["Symbol"]) for each in printed["Symbols"]],
        [
            _relocation(group["SectionIndex"], each["Relocation"])
            for group in printed["Relocations"]
            for each in group["Relocs"]
        ],
    )


def _section(entry: dict[str, Any]) -> Section:
    return Section(
        entry["Index"],
        entry["Name"]["Name"],
        entry["Type"]["Value"],
        entry["Flags"]["Value"],
        entry["Size"],
        entry["Link"],
        entry["Info"],
        entry["AddressAlignment"],
    )


def _symbol(entry: dict[str, Any]) -> Symbol:
    return Symbol(
        entry["Name"]["Name"],
        entry["Value"],
        entry["Size"],
        entry["Binding"]["Value"],
        entry["Type"]["Value"],
        entry["Other"]["Value"],
        entry["Section"]["Value"],
    )


def _relocation(section: int, entry: dict[str, Any]) -> Relocation:
    # llvm-readobj prints addends as unsigned integers.
    addend = entry.get("Addend", 0)
    addend -= (addend >> 63) << 64
    return Relocation(
        section, entry["Offset"], entry["Type"]["Value"], entry["Symbol"]["Value"], addend
    )
