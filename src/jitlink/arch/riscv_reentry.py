"""Machine code of RISC-V of 64 bits for functions that another process implements.

Specification: RISC-V Calling Conventions (psABI); t1 and t2 hold no arguments.
"""

from __future__ import annotations

from jitlink.arch.reentry import HostFunctionCode, ReentryCode
from jitlink.arch.riscv import RISCVEdgeKind as K

REENTRY: ReentryCode | None = None

# auipc t1, %pcrel_hi(record); addi t1, t1, %pcrel_lo(record); ld t2, 0(t1); jr t2
HOST_FUNCTION = HostFunctionCode(
    bytes.fromhex("17030000 13030300 83330300 67800300"),
    ((K.R_RISCV_PCREL_HI20, 0, 0), (K.DELTA_LO12_I, 4, 4)),
    4,
)
"""Machine code for functions that another process implements."""
