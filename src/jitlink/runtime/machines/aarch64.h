/* AArch64: see machine.h.
 *
 * The last integer register is x8, the address for a result in memory. Functions begin with a landing
 * pad, since they may be called through pointers.
 *
 * Specification: Procedure Call Standard for the Arm 64-bit Architecture (AAPCS64), 6.
 */
#include <linux/audit.h>
#include <sys/syscall.h>
#include <sys/ucontext.h>

/* Calls */

enum { INTEGERS = 9, FLOATS = 8, INTEGER_RESULTS = 2, FLOAT_RESULTS = 4 };
enum { CALL_FLOATS = 80, CALL_COUNT = 144, CALL_RESULTS = 160 };
enum { ENTRY_FLOATS = 72, ENTRY_STACK = 136, ENTRY_RESULTS = 144, ENTRY_SIZE = 192 };

#define CALL_FRAME                                                                                 \
  "  stp x29, x30, [sp, #-32]!\n"                                                                  \
  "  .cfi_def_cfa_offset 32\n"                                                                     \
  "  .cfi_offset x29, -32\n"                                                                       \
  "  .cfi_offset x30, -24\n"                                                                       \
  "  mov x29, sp\n"                                                                                \
  "  .cfi_def_cfa_register x29\n"                                                                  \
  "  str x19, [sp, #16]\n"                                                                         \
  "  .cfi_offset x19, -16\n"                                                                       \
  "  mov x19, x0\n"                                                                                \
  "  ldp x9, x10, [x19, #144]\n"                                                                   \
  /* The stack pointer is always a multiple of 16. */                                              \
  "  add x11, x9, #1\n"                                                                            \
  "  and x11, x11, #-2\n"                                                                          \
  "  sub sp, sp, x11, lsl #3\n"                                                                    \
  "1:\n"                                                                                           \
  "  cbz x9, 2f\n"                                                                                 \
  "  sub x9, x9, #1\n"                                                                             \
  "  ldr x11, [x10, x9, lsl #3]\n"                                                                 \
  "  str x11, [sp, x9, lsl #3]\n"                                                                  \
  "  b 1b\n"                                                                                       \
  "2:\n"                                                                                           \
  "  ldp d0, d1, [x19, #80]\n"                                                                     \
  "  ldp d2, d3, [x19, #96]\n"                                                                     \
  "  ldp d4, d5, [x19, #112]\n"                                                                    \
  "  ldp d6, d7, [x19, #128]\n"                                                                    \
  "  ldp x0, x1, [x19, #8]\n"                                                                      \
  "  ldp x2, x3, [x19, #24]\n"                                                                     \
  "  ldp x4, x5, [x19, #40]\n"                                                                     \
  "  ldp x6, x7, [x19, #56]\n"                                                                     \
  "  ldr x8, [x19, #72]\n"                                                                         \
  "  ldr x9, [x19]\n"                                                                              \
  "  blr x9\n"                                                                                     \
  "  .globl __jitlink_call_return\n"                                                               \
  "__jitlink_call_return:\n"                                                                       \
  "  stp x0, x1, [x19, #160]\n"                                                                    \
  "  stp d0, d1, [x19, #176]\n"                                                                    \
  "  stp d2, d3, [x19, #192]\n"                                                                    \
  "  ldr x19, [x29, #16]\n"                                                                        \
  "  mov sp, x29\n"                                                                                \
  "  ldp x29, x30, [sp], #32\n"                                                                    \
  "  .cfi_def_cfa sp, 0\n"                                                                         \
  "  .cfi_restore x19\n"                                                                           \
  "  .cfi_restore x29\n"                                                                           \
  "  .cfi_restore x30\n"                                                                           \
  "  ret\n"

#define PYTHON_ENTRY                                                                               \
  "  hint #34\n" /* bti c */                                                                       \
  "  stp x29, x30, [sp, #-16]!\n"                                                                  \
  "  .cfi_def_cfa_offset 16\n"                                                                     \
  "  .cfi_offset x29, -16\n"                                                                       \
  "  .cfi_offset x30, -8\n"                                                                        \
  "  mov x29, sp\n"                                                                                \
  "  .cfi_def_cfa_register x29\n"                                                                  \
  "  sub sp, sp, #192\n"                                                                           \
  "  stp x0, x1, [sp, #0]\n"                                                                       \
  "  stp x2, x3, [sp, #16]\n"                                                                      \
  "  stp x4, x5, [sp, #32]\n"                                                                      \
  "  stp x6, x7, [sp, #48]\n"                                                                      \
  "  str x8, [sp, #64]\n"                                                                          \
  "  stp d0, d1, [sp, #72]\n"                                                                      \
  "  stp d2, d3, [sp, #88]\n"                                                                      \
  "  stp d4, d5, [sp, #104]\n"                                                                     \
  "  stp d6, d7, [sp, #120]\n"                                                                     \
  "  add x9, x29, #16\n"                                                                           \
  "  str x9, [sp, #136]\n"                                                                         \
  "  mov x0, x16\n"                                                                                \
  "  mov x1, sp\n"                                                                                 \
  "  bl jitlink_call_python\n"                                                                     \
  "  ldp x0, x1, [sp, #144]\n"                                                                     \
  "  ldp d0, d1, [sp, #160]\n"                                                                     \
  "  ldp d2, d3, [sp, #176]\n"                                                                     \
  "  mov sp, x29\n"                                                                                \
  "  ldp x29, x30, [sp], #16\n"                                                                    \
  "  .cfi_def_cfa sp, 0\n"                                                                         \
  "  .cfi_restore x29\n"                                                                           \
  "  .cfi_restore x30\n"                                                                           \
  "  ret\n"

#define RETURN_ZERO                                                                                \
  "  hint #34\n"                                                                                   \
  "  mov x0, xzr\n"                                                                                \
  "  mov x1, xzr\n"                                                                                \
  "  movi v0.2d, #0\n"                                                                             \
  "  movi v1.2d, #0\n"                                                                             \
  "  movi v2.2d, #0\n"                                                                             \
  "  movi v3.2d, #0\n"                                                                             \
  "  ret\n"

/* Crashes */

#define REGISTER_NAMES                                                                             \
  "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13",          \
  "x14", "x15", "x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26",       \
  "x27", "x28", "x29", "x30", "sp", "pc"

static inline uint64_t register_at(const ucontext_t *context, size_t number) {
  if (number < 31)
    return context->uc_mcontext.regs[number];
  return number == 31 ? context->uc_mcontext.sp : context->uc_mcontext.pc;
}

static inline uint64_t counter_of(const ucontext_t *context) { return context->uc_mcontext.pc; }

static inline void return_from_call(ucontext_t *context) {
  context->uc_mcontext.pc = context->uc_mcontext.regs[30];
}

/* System calls */

enum { AUDIT_ARCHITECTURE = (int)AUDIT_ARCH_AARCH64 };
#define MACHINE_CALLS SYS_renameat,
