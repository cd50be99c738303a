/* RISC-V of 64 bits, with the D extension: see machine.h.
 *
 * Specification: RISC-V Calling Conventions (psABI), LP64D.
 */
#include <linux/audit.h>
#include <sys/syscall.h>
#include <sys/ucontext.h>

/* Calls */

enum { INTEGERS = 8, FLOATS = 8, INTEGER_RESULTS = 2, FLOAT_RESULTS = 2 };
enum { CALL_FLOATS = 72, CALL_COUNT = 136, CALL_RESULTS = 152 };
enum { ENTRY_FLOATS = 64, ENTRY_STACK = 128, ENTRY_RESULTS = 136, ENTRY_SIZE = 184 };

#define CALL_FRAME                                                                                 \
  "  addi sp, sp, -32\n"                                                                           \
  "  .cfi_def_cfa_offset 32\n"                                                                     \
  "  sd ra, 24(sp)\n"                                                                              \
  "  .cfi_offset ra, -8\n"                                                                         \
  "  sd s0, 16(sp)\n"                                                                              \
  "  .cfi_offset s0, -16\n"                                                                        \
  "  sd s1, 8(sp)\n"                                                                               \
  "  .cfi_offset s1, -24\n"                                                                        \
  "  addi s0, sp, 32\n"                                                                            \
  "  .cfi_def_cfa s0, 0\n"                                                                         \
  "  mv s1, a0\n"                                                                                  \
  "  ld t0, 136(s1)\n"                                                                             \
  "  ld t1, 144(s1)\n"                                                                             \
  /* The stack pointer is always a multiple of 16. */                                              \
  "  addi t2, t0, 1\n"                                                                             \
  "  andi t2, t2, -2\n"                                                                            \
  "  slli t2, t2, 3\n"                                                                             \
  "  sub sp, sp, t2\n"                                                                             \
  "1:\n"                                                                                           \
  "  beqz t0, 2f\n"                                                                                \
  "  addi t0, t0, -1\n"                                                                            \
  "  slli t2, t0, 3\n"                                                                             \
  "  add t3, t1, t2\n"                                                                             \
  "  ld t3, 0(t3)\n"                                                                               \
  "  add t2, sp, t2\n"                                                                             \
  "  sd t3, 0(t2)\n"                                                                               \
  "  j 1b\n"                                                                                       \
  "2:\n"                                                                                           \
  "  fld fa0, 72(s1)\n"                                                                            \
  "  fld fa1, 80(s1)\n"                                                                            \
  "  fld fa2, 88(s1)\n"                                                                            \
  "  fld fa3, 96(s1)\n"                                                                            \
  "  fld fa4, 104(s1)\n"                                                                           \
  "  fld fa5, 112(s1)\n"                                                                           \
  "  fld fa6, 120(s1)\n"                                                                           \
  "  fld fa7, 128(s1)\n"                                                                           \
  "  ld a0, 8(s1)\n"                                                                               \
  "  ld a1, 16(s1)\n"                                                                              \
  "  ld a2, 24(s1)\n"                                                                              \
  "  ld a3, 32(s1)\n"                                                                              \
  "  ld a4, 40(s1)\n"                                                                              \
  "  ld a5, 48(s1)\n"                                                                              \
  "  ld a6, 56(s1)\n"                                                                              \
  "  ld a7, 64(s1)\n"                                                                              \
  "  ld t0, 0(s1)\n"                                                                               \
  "  jalr t0\n"                                                                                    \
  "  .globl __jitlink_call_return\n"                                                               \
  "__jitlink_call_return:\n"                                                                       \
  "  sd a0, 152(s1)\n"                                                                             \
  "  sd a1, 160(s1)\n"                                                                             \
  "  fsd fa0, 168(s1)\n"                                                                           \
  "  fsd fa1, 176(s1)\n"                                                                           \
  "  addi sp, s0, -32\n"                                                                           \
  "  .cfi_def_cfa sp, 32\n"                                                                        \
  "  ld ra, 24(sp)\n"                                                                              \
  "  .cfi_restore ra\n"                                                                            \
  "  ld s0, 16(sp)\n"                                                                              \
  "  .cfi_restore s0\n"                                                                            \
  "  ld s1, 8(sp)\n"                                                                               \
  "  .cfi_restore s1\n"                                                                            \
  "  addi sp, sp, 32\n"                                                                            \
  "  .cfi_def_cfa_offset 0\n"                                                                      \
  "  ret\n"

#define PYTHON_ENTRY                                                                               \
  "  addi sp, sp, -192\n"                                                                          \
  "  .cfi_def_cfa_offset 192\n"                                                                    \
  "  sd ra, 184(sp)\n"                                                                             \
  "  .cfi_offset ra, -8\n"                                                                         \
  "  sd a0, 0(sp)\n"                                                                               \
  "  sd a1, 8(sp)\n"                                                                               \
  "  sd a2, 16(sp)\n"                                                                              \
  "  sd a3, 24(sp)\n"                                                                              \
  "  sd a4, 32(sp)\n"                                                                              \
  "  sd a5, 40(sp)\n"                                                                              \
  "  sd a6, 48(sp)\n"                                                                              \
  "  sd a7, 56(sp)\n"                                                                              \
  "  fsd fa0, 64(sp)\n"                                                                            \
  "  fsd fa1, 72(sp)\n"                                                                            \
  "  fsd fa2, 80(sp)\n"                                                                            \
  "  fsd fa3, 88(sp)\n"                                                                            \
  "  fsd fa4, 96(sp)\n"                                                                            \
  "  fsd fa5, 104(sp)\n"                                                                           \
  "  fsd fa6, 112(sp)\n"                                                                           \
  "  fsd fa7, 120(sp)\n"                                                                           \
  "  addi t0, sp, 192\n"                                                                           \
  "  sd t0, 128(sp)\n"                                                                             \
  "  mv a0, t1\n"                                                                                  \
  "  mv a1, sp\n"                                                                                  \
  "  call jitlink_call_python\n"                                                                   \
  "  ld a0, 136(sp)\n"                                                                             \
  "  ld a1, 144(sp)\n"                                                                             \
  "  fld fa0, 152(sp)\n"                                                                           \
  "  fld fa1, 160(sp)\n"                                                                           \
  "  ld ra, 184(sp)\n"                                                                             \
  "  .cfi_restore ra\n"                                                                            \
  "  addi sp, sp, 192\n"                                                                           \
  "  .cfi_def_cfa_offset 0\n"                                                                      \
  "  ret\n"

#define RETURN_ZERO                                                                                \
  "  li a0, 0\n"                                                                                   \
  "  li a1, 0\n"                                                                                   \
  "  fmv.d.x fa0, zero\n"                                                                          \
  "  fmv.d.x fa1, zero\n"                                                                          \
  "  ret\n"

/* Crashes */

#define REGISTER_NAMES                                                                             \
  "pc", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0", "a1", "a2", "a3",              \
  "a4", "a5", "a6", "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11",            \
  "t3", "t4", "t5", "t6"

static inline uint64_t register_at(const ucontext_t *context, size_t number) {
  return context->uc_mcontext.__gregs[number];
}

static inline uint64_t counter_of(const ucontext_t *context) {
  return context->uc_mcontext.__gregs[REG_PC];
}

static inline void return_from_call(ucontext_t *context) {
  context->uc_mcontext.__gregs[REG_PC] = context->uc_mcontext.__gregs[REG_RA];
}

/* System calls */

enum { AUDIT_ARCHITECTURE = (int)AUDIT_ARCH_RISCV64 };
#define MACHINE_CALLS SYS_riscv_flush_icache, SYS_riscv_hwprobe,
