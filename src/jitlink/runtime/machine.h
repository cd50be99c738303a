/* What the C sources need to know of an architecture: each has a file in machines/, of which this one
 * chooses one. Such a file defines
 *
 *   INTEGERS, FLOATS     how many registers a call loads with words of arguments
 *   INTEGER_RESULTS, FLOAT_RESULTS   how many registers hold words of results
 *   CALL_*, ENTRY_*      offsets in the frames that these instructions use, and a frame's size:
 *   CALL_FRAME           the function that makes a call from a frame, which is its argument; the
 *                        label __jitlink_call_return is behind the call
 *   PYTHON_ENTRY         what stores its arguments in a frame, calls jitlink_call_python with the
 *                        address of its record, and that frame, and returns what it finds there;
 *                        Target.host_function says in which register the record is
 *   RETURN_ZERO          what returns zero in all registers of results
 *   REGISTER_NAMES, register_at, counter_of
 *                        the registers of an interrupted thread, and its program counter
 *   return_from_call     undoes a call that has led nowhere
 *   AUDIT_ARCHITECTURE   what a filter of system calls sees
 *   MACHINE_CALLS        harmless system calls that other architectures do not have
 */
#ifndef JITLINK_MACHINE_H
#define JITLINK_MACHINE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__)
#include "machines/x86_64.h"
#elif defined(__aarch64__)
#include "machines/aarch64.h"
#elif defined(__riscv) && __riscv_xlen == 64
#include "machines/riscv64.h"
#else
#error "there is no file in machines/ for this architecture"
#endif

enum { RESULTS = INTEGER_RESULTS + FLOAT_RESULTS };

/* Defines a global function. */
#define FUNCTION(name, instructions)                                                               \
  __asm__("  .text\n"                                                                              \
          "  .p2align 2\n"                                                                         \
          "  .globl " name "\n"                                                                    \
          "  .type " name ", @function\n" name ":\n"                                               \
          "  .cfi_startproc\n" instructions                                                        \
          "  .cfi_endproc\n"                                                                       \
          "  .size " name ", .-" name "\n")

#endif
