/* The registers of calls, and functions in assembly language, which load and store them.
 *
 * Specification: System V ABI, AMD64 supplement, 3.2; AAPCS64, 6.
 */
#ifndef JITLINK_REGISTERS_H
#define JITLINK_REGISTERS_H

/* On AArch64 the last integer register is x8, the address for a result in memory. */
#if defined(__x86_64__)
enum { INTEGERS = 6, FLOATS = 8, INTEGER_RESULTS = 2, FLOAT_RESULTS = 2 };
#elif defined(__aarch64__)
enum { INTEGERS = 9, FLOATS = 8, INTEGER_RESULTS = 2, FLOAT_RESULTS = 4 };
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
