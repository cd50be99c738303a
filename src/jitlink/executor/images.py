"""Images of this process, loaded by glibc.

glibc loads an image like any shared library, from a memory file, and lists it for
``dl_iterate_phdr``, ``dladdr`` and ``_dl_find_object``. Its symbols are in the global scope, after
those of what is loaded already. glibc uses the image's program headers and tables where they are,
and jitlink writes to them.

The name in that list is a copy, from malloc, of the path that was given to ``dlopen``, and is
written over: a path to a memory file can be spelled as long as the name is.

A program's own symbols natively precede those of all libraries, but here the program of the process
is another one. So a library that linked code opens is loaded as a dependency of a module that has
the image as its first one, with RTLD_DEEPBIND: glibc then searches the dependencies of the module,
in their order, before the global scope. The module is not needed any more once the library is
bound, and is unloaded if that was done at once.

Specification: dlopen(3), dlinfo(3), dl_iterate_phdr(3); glibc, elf/dl-load.c and elf/dl-object.c.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
from collections.abc import Callable

import numpy as np

from jitlink.errors import AllocationError, ExecutorError, InputError
from jitlink.formats.elf_image import DynamicSymbols, ImageLayout, ProgramHeaders
from jitlink.formats.elf_layout import Identity, identify
from jitlink.memory import mapping
from jitlink.memory.dynamic_linker import dlopen, link_map_of
from jitlink.memory.images import EXPORTING, Image, Images, ImageSymbols
from jitlink.memory.tls_glibc import (
    check_support,
    load_module,
    try_to_load_module,
    unload_module,
)

_HEADER_SIZE = 64
_NAME_LIMIT = 3 << 10
"""The longest name in bytes, less than the system's limit for paths."""
_numbers = itertools.count(1)


@functools.cache
def program_identity() -> Identity:
    """The identity of this process's program.

    Raises:
        ExecutorError: it cannot be read, or is not ELF.
    """
    try:
        with open("/proc/self/exe", "rb") as file:  # noqa: PTH123 - pathlib is slow to import
            return identify(memoryview(file.read(_HEADER_SIZE)), "/proc/self/exe")
    except (InputError, OSError) as error:
        raise ExecutorError(f"the program of this process cannot be read: {error}") from error


class LoadedImage(Image):
    """An image that glibc has loaded.

    Args:
        layout: the layout.
        name: the name in glibc's list.
        address: where the image should be; 0 for a place that the system chooses.
        unloaded: called before it is unloaded.

    Attributes:
        bias: the difference between addresses and those that the image was written for.
        soname: a name that no other module has.
        symbols: its dynamic symbols.

    Raises:
        AllocationError: its headers cannot be made writable.
        ExecutorError: glibc refuses to load it.
    """

    def __init__(
        self,
        layout: ImageLayout,
        name: bytes,
        address: int,
        unloaded: Callable[[LoadedImage], None],
    ) -> None:
        self._unloaded = unloaded
        self.soname = f"jitlink-image-{next(_numbers)}"
        mode = os.RTLD_NOW | os.RTLD_GLOBAL
        self._handle = load_module(layout.write(address), mode, path_size=len(name))
        try:
            self._take_over(layout, name, address)
        except BaseException:
            unload_module(self._handle)
            raise

    def _take_over(self, layout: ImageLayout, name: bytes, address: int) -> None:
        """Find the image that was loaded, and make its headers writable."""
        loaded = link_map_of(self._handle)
        self.bias = loaded.address
        start = address + loaded.address
        self.start = start + layout.memory
        self.size = layout.tables - layout.memory
        # glibc has mapped the headers for reading; they are in a page of their own.
        mapping.protect(start, layout.page_size, mapping.READ_WRITE)
        headers = mapping.view(start, layout.page_size)
        tables = mapping.view(start + layout.tables, layout.tables_size)
        self._headers = ProgramHeaders(layout, headers, address)
        self.symbols = DynamicSymbols(layout, tables, loaded.address, self.soname)
        ctypes.memmove(loaded.name, name + b"\0", len(name) + 1)

    def list_segment(self, index: int, offset: int, size: int) -> None:
        """See `Image`."""
        self._headers.list_segment(index, offset, size)

    def unload(self) -> None:
        """See `Image`."""
        self._unloaded(self)
        try:
            unload_module(self._handle)
        except ExecutorError as error:
            raise AllocationError(str(error), size=self.size) from error


class ProcessImages(Images):
    """The images of a JITDylib in this process.

    Args:
        name: their name in the process's list, such as a path.
        exports: whether they export symbols.

    Raises:
        ExecutorError: the name cannot be one, or there is no image format for this process.
    """

    def __init__(self, name: str, *, exports: bool) -> None:
        super().__init__()
        self._name = os.fsencode(name)
        if not 0 < len(self._name) <= _NAME_LIMIT or b"\0" in self._name:
            raise ExecutorError(
                f"the name of an image has 1 to {_NAME_LIMIT} bytes and no null character, not "
                f"{self._name[:_HEADER_SIZE]!r} and {len(self._name)} bytes"
            )
        check_support()
        self._identity = program_identity()
        self.exports = exports
        self._loaded: list[LoadedImage] = []

    def load(self, size: int, address: int) -> Image:
        """See `Images`."""
        try:
            layout = ImageLayout(self._identity, mapping.PAGE_SIZE, size, has_symbols=self.exports)
            image = LoadedImage(layout, self._name, address, self._forget)
        except (ExecutorError, ValueError) as error:
            raise AllocationError(f"cannot load an image: {error}", size=size) from error
        self._loaded.append(image)
        if self.exports:
            EXPORTING.append(image)
        if address and image.start - layout.memory != address:
            image.unload()
            raise AllocationError(f"cannot load an image at {address:#x}", size=size)
        return image

    def _forget(self, image: LoadedImage) -> None:
        self._loaded.remove(image)
        if self.exports:
            EXPORTING.remove(image)

    @property
    def bias(self) -> int:
        """See `Images`."""
        return self._loaded[0].bias if self._loaded else 0

    def define(self, symbols: ImageSymbols) -> None:
        """See `Images`."""
        absolute = symbols.is_absolute.copy()
        for image in self._loaded:
            inside = symbols.addresses - np.uint64(image.start) < image.size
            chosen = (inside & ~symbols.is_absolute) | absolute
            absolute[:] = False
            if chosen.any():
                image.symbols.define(symbols.rows(np.flatnonzero(chosen).tolist()))

    def remove(self, symbols: ImageSymbols) -> None:
        """See `Images`."""
        for image in self._loaded:
            image.symbols.remove(symbols)

    def open_library(self, path: bytes, mode: int) -> int:
        """See `Images`."""
        if not self.exports or not self._loaded or mode & os.RTLD_NOLOAD:
            return 0
        # Imported on use: few programs load libraries.
        from jitlink.formats.elf_shared_object import (  # noqa: PLC0415
            SharedObject,
            write_shared_object,
        )

        sonames = [image.soname for image in self._loaded]
        needed = [*sonames, *self.tls_modules, os.fsdecode(path)]
        module = write_shared_object(self._identity, SharedObject("jitlink-scope", needed))
        scope, reason = try_to_load_module(module, os.RTLD_NOW | os.RTLD_DEEPBIND)
        is_bound = reason is None
        if not is_bound and not mode & os.RTLD_NOW:
            scope, reason = try_to_load_module(module, os.RTLD_LAZY | os.RTLD_DEEPBIND)
        if reason is not None:
            raise ExecutorError(reason)
        handle = dlopen(path, mode)
        # What is bound later is searched for in the scope, which is never unloaded then.
        if is_bound:
            unload_module(scope)
        return handle or 0
