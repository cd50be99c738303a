"""The symbol file of a program, by which symbolizers in its process find its functions."""

from __future__ import annotations

from jitlink.executor.code_map import LinkedGraph
from jitlink.executor.images import program_identity
from jitlink.formats.elf_symbol_file import write_symbol_file
from jitlink.graph import LinkGraph
from jitlink.link import PassConfiguration
from jitlink.memory.images import ImageSymbols
from jitlink.orc import JITDylib, MaterializationResponsibility, Plugin
from jitlink.tool.output_file import OutputFileError


class SymbolFileWriter(Plugin):
    """Writes the symbols of all links into a JITDylib.

    Args:
        path: the file, which is overwritten.
        dylib: the JITDylib, which is an image.
    """

    defines_symbols = False

    def __init__(self, path: str, dylib: JITDylib) -> None:
        self._path = path
        self._dylib = dylib
        self._symbols: list[ImageSymbols] = []

    def modify_pass_config(
        self,
        responsibility: MaterializationResponsibility,
        graph: LinkGraph,  # noqa: ARG002 - part of the interface
        config: PassConfiguration,
    ) -> None:
        """Record the symbols when their addresses are final."""
        if responsibility.dylib is not self._dylib:
            return

        def record(graph: LinkGraph) -> None:
            linked = LinkedGraph(graph)
            config.post_fixup.append(lambda _graph: self._symbols.append(linked.symbols()))

        config.add_pre_prune(record)

    def notify_emitted(self, responsibility: MaterializationResponsibility) -> None:
        """Write the symbols of all links until now.

        Raises:
            OutputFileError: the file cannot be written.
        """
        images = self._dylib.images
        if responsibility.dylib is not self._dylib or images is None:
            return
        symbols = ImageSymbols.joined(self._symbols)
        content = write_symbol_file(program_identity(), symbols, images.bias)
        try:
            with open(self._path, "wb") as file:  # noqa: PTH123 - pathlib is slow to import
                file.write(content)
        except OSError as error:
            raise OutputFileError(self._path, error) from error
