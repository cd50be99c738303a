"""Versioned names of ELF symbols, as assemblers write them for ``.symver``.

``f@V`` is the version V of f. A definition ``f@@V`` is the default version, which references to
plain f mean, too; it becomes two definitions, f and ``f@V``, so that a reference always has the
name of the definition that satisfies it. A plain definition satisfies no reference to a version.

Quirks: linkers differ about links without a version script. For GNU ld a definition ``f@@V``
beside one of f at the same address is a duplicate, for ld.lld, mold and here it is not. For GNU ld
and here a reference ``f@V`` means a definition ``f@@V``.

Specification: "ELF Symbol Versioning" by Ulrich Drepper; the manual of GNU as, ``.symver``.
"""

from __future__ import annotations

from typing import NamedTuple


class VersionedName(NamedTuple):
    """The parts of a versioned name.

    Attributes:
        plain: the name without the version.
        version: the version.
        is_default: whether it is the default version.
    """

    plain: str
    version: str
    is_default: bool

    @property
    def of_version(self) -> str:
        """The name by which references mean this version."""
        return f"{self.plain}@{self.version}"


def split(name: str) -> VersionedName | None:
    """The parts of a name; None if it has no version."""
    plain, at, version = name.partition("@")
    if not plain or not at or plain.startswith("?"):
        # Microsoft's mangled names begin with a question mark, and have at signs.
        return None
    is_default = version.startswith("@")
    version = version.removeprefix("@")
    return VersionedName(plain, version, is_default) if version else None
