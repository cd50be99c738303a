"""Executors: the processes in which linked code is placed and run (layer 2)."""

from jitlink.executor.control import ExecutorProcessControl
from jitlink.executor.self_process import SelfExecutorProcessControl

__all__ = ["ExecutorProcessControl", "SelfExecutorProcessControl"]
