"""Logs: loggers of the standard module `logging`, which they do not import by themselves.

What is logged is of level DEBUG, which no logger writes unless it has been set to; code that does
that has imported `logging`, whose import takes longer than the link of a small object. Errors that
can be reported in no other way are logged, too: `Log.logger` is for these.
"""

from __future__ import annotations

import sys
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging

_DEBUG = 10
"""`logging.DEBUG`."""


class Log:
    """A log of a part of the linker.

    Args:
        name: the name of its logger.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    @cached_property
    def logger(self) -> logging.Logger:
        """The logger."""
        import logging  # noqa: PLC0415 - see above

        return logging.getLogger(self._name)

    @property
    def is_on(self) -> bool:
        """Whether messages are written: what makes costly ones asks first."""
        return "logging" in sys.modules and self.logger.isEnabledFor(_DEBUG)

    def debug(self, message: str, *values: object) -> None:
        """Log a message, with values in the places that `logging` formats."""
        if self.is_on:
            self.logger.debug(message, *values, stacklevel=2)
