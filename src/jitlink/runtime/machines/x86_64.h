/* x86-64: see machine.h.
 *
 * Specification: System V ABI, AMD64 supplement, 3.2 "Function Calling Sequence".
 */
#include <linux/audit.h>
#include <sys/syscall.h>
#include <sys/ucontext.h>

/* Calls */

enum { INTEGERS = 6, FLOATS = 8, INTEGER_RESULTS = 2, FLOAT_RESULTS = 2 };
enum { CALL_FLOATS = 56, CALL_COUNT = 120, CALL_RESULTS = 136 };
enum { ENTRY_FLOATS = 48, ENTRY_STACK = 112, ENTRY_RESULTS = 120, ENTRY_SIZE = 160 };

#define CALL_FRAME                                                                                 \
  "  pushq %rbp\n"                                                                                 \
  "  .cfi_def_cfa_offset 16\n"                                                                     \
  "  .cfi_offset %rbp, -16\n"                                                                      \
  "  movq %rsp, %rbp\n"                                                                            \
  "  .cfi_def_cfa_register %rbp\n"                                                                 \
  "  pushq %rbx\n"                                                                                 \
  "  .cfi_offset %rbx, -24\n"                                                                      \
  "  subq $8, %rsp\n"                                                                              \
  "  movq %rdi, %rbx\n"                                                                            \
  "  movq 120(%rbx), %rcx\n"                                                                       \
  "  movq 128(%rbx), %rsi\n"                                                                       \
  /* The stack pointer is a multiple of 16 at the call. */                                         \
  "  testq $1, %rcx\n"                                                                             \
  "  jz 1f\n"                                                                                      \
  "  subq $8, %rsp\n"                                                                              \
  "1:\n"                                                                                           \
  "  testq %rcx, %rcx\n"                                                                           \
  "  jz 2f\n"                                                                                      \
  "  pushq -8(%rsi,%rcx,8)\n"                                                                      \
  "  subq $1, %rcx\n"                                                                              \
  "  jmp 1b\n"                                                                                     \
  "2:\n"                                                                                           \
  "  movsd 56(%rbx), %xmm0\n"                                                                      \
  "  movsd 64(%rbx), %xmm1\n"                                                                      \
  "  movsd 72(%rbx), %xmm2\n"                                                                      \
  "  movsd 80(%rbx), %xmm3\n"                                                                      \
  "  movsd 88(%rbx), %xmm4\n"                                                                      \
  "  movsd 96(%rbx), %xmm5\n"                                                                      \
  "  movsd 104(%rbx), %xmm6\n"                                                                     \
  "  movsd 112(%rbx), %xmm7\n"                                                                     \
  "  movq 8(%rbx), %rdi\n"                                                                         \
  "  movq 16(%rbx), %rsi\n"                                                                        \
  "  movq 24(%rbx), %rdx\n"                                                                        \
  "  movq 32(%rbx), %rcx\n"                                                                        \
  "  movq 40(%rbx), %r8\n"                                                                         \
  "  movq 48(%rbx), %r9\n"                                                                         \
  /* An upper bound of the floating-point registers, for variadic functions. */                    \
  "  movl $8, %eax\n"                                                                              \
  "  callq *(%rbx)\n"                                                                              \
  "  .globl __jitlink_call_return\n"                                                               \
  "__jitlink_call_return:\n"                                                                       \
  "  movq %rax, 136(%rbx)\n"                                                                       \
  "  movq %rdx, 144(%rbx)\n"                                                                       \
  "  movsd %xmm0, 152(%rbx)\n"                                                                     \
  "  movsd %xmm1, 160(%rbx)\n"                                                                     \
  "  movq -8(%rbp), %rbx\n"                                                                        \
  "  leave\n"                                                                                      \
  "  .cfi_def_cfa %rsp, 8\n"                                                                       \
  "  retq\n"

#define PYTHON_ENTRY                                                                               \
  "  pushq %rbp\n"                                                                                 \
  "  .cfi_def_cfa_offset 16\n"                                                                     \
  "  .cfi_offset %rbp, -16\n"                                                                      \
  "  movq %rsp, %rbp\n"                                                                            \
  "  .cfi_def_cfa_register %rbp\n"                                                                 \
  "  subq $160, %rsp\n"                                                                            \
  "  movq %rdi, 0(%rsp)\n"                                                                         \
  "  movq %rsi, 8(%rsp)\n"                                                                         \
  "  movq %rdx, 16(%rsp)\n"                                                                        \
  "  movq %rcx, 24(%rsp)\n"                                                                        \
  "  movq %r8, 32(%rsp)\n"                                                                         \
  "  movq %r9, 40(%rsp)\n"                                                                         \
  "  movsd %xmm0, 48(%rsp)\n"                                                                      \
  "  movsd %xmm1, 56(%rsp)\n"                                                                      \
  "  movsd %xmm2, 64(%rsp)\n"                                                                      \
  "  movsd %xmm3, 72(%rsp)\n"                                                                      \
  "  movsd %xmm4, 80(%rsp)\n"                                                                      \
  "  movsd %xmm5, 88(%rsp)\n"                                                                      \
  "  movsd %xmm6, 96(%rsp)\n"                                                                      \
  "  movsd %xmm7, 104(%rsp)\n"                                                                     \
  "  leaq 16(%rbp), %rax\n"                                                                        \
  "  movq %rax, 112(%rsp)\n"                                                                       \
  "  movq %r11, %rdi\n"                                                                            \
  "  movq %rsp, %rsi\n"                                                                            \
  "  callq jitlink_call_python\n"                                                                  \
  "  movq 120(%rsp), %rax\n"                                                                       \
  "  movq 128(%rsp), %rdx\n"                                                                       \
  "  movsd 136(%rsp), %xmm0\n"                                                                     \
  "  movsd 144(%rsp), %xmm1\n"                                                                     \
  "  leave\n"                                                                                      \
  "  .cfi_def_cfa %rsp, 8\n"                                                                       \
  "  retq\n"

#define RETURN_ZERO                                                                                \
  "  xorl %eax, %eax\n"                                                                            \
  "  xorl %edx, %edx\n"                                                                            \
  "  pxor %xmm0, %xmm0\n"                                                                          \
  "  pxor %xmm1, %xmm1\n"                                                                          \
  "  retq\n"

/* Crashes */

#define REGISTER_NAMES                                                                             \
  "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12",         \
  "r13", "r14", "r15", "rip", "eflags"

static inline uint64_t register_at(const ucontext_t *context, size_t number) {
  static const int places[] = {REG_RAX, REG_RBX, REG_RCX, REG_RDX, REG_RSI, REG_RDI,
                               REG_RBP, REG_RSP, REG_R8,  REG_R9,  REG_R10, REG_R11,
                               REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP, REG_EFL};
  return (uint64_t)context->uc_mcontext.gregs[places[number]];
}

static inline uint64_t counter_of(const ucontext_t *context) {
  return (uint64_t)context->uc_mcontext.gregs[REG_RIP];
}

static inline void return_from_call(ucontext_t *context) {
  greg_t *registers = context->uc_mcontext.gregs;
  registers[REG_RIP] = *(greg_t *)(uintptr_t)registers[REG_RSP];
  registers[REG_RSP] += 8;
}

/* System calls */

enum { AUDIT_ARCHITECTURE = (int)AUDIT_ARCH_X86_64 };
#define MACHINE_CALLS                                                                              \
  SYS_stat, SYS_lstat, SYS_poll, SYS_access, SYS_pipe, SYS_select, SYS_pause, SYS_alarm,           \
      SYS_getdents, SYS_rename, SYS_mkdir, SYS_rmdir, SYS_creat, SYS_link, SYS_unlink,             \
      SYS_readlink, SYS_getpgrp, SYS_epoll_create, SYS_epoll_wait, SYS_signalfd, SYS_eventfd,      \
      SYS_time, SYS_renameat,
