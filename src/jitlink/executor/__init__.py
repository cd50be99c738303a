"""Executors: the processes that linked code is put into and run in (layer 2)."""

from jitlink.executor.control import ExecutorProcessControl
from jitlink.executor.self_process import SelfExecutorProcessControl

__all__ = ["ExecutorProcessControl", "SelfExecutorProcessControl"]
