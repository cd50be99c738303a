/* setjmp and longjmp: the registers that calls preserve. */

#define FUNCTION(name, body)                                                                       \
  __asm__(".text\n.balign 16\n.globl " name "\n.type " name ", %function\n" name ":\n" body         \
          ".size " name ", . - " name "\n")

#if defined(__x86_64__)
#define SETJMP                                                                                     \
  "movq %rbx, (%rdi)\nmovq %rbp, 8(%rdi)\nmovq %r12, 16(%rdi)\nmovq %r13, 24(%rdi)\n"              \
  "movq %r14, 32(%rdi)\nmovq %r15, 40(%rdi)\nleaq 8(%rsp), %rdx\nmovq %rdx, 48(%rdi)\n"            \
  "movq (%rsp), %rdx\nmovq %rdx, 56(%rdi)\nxorl %eax, %eax\nretq\n"
#define LONGJMP                                                                                    \
  "movl %esi, %eax\ntestl %eax, %eax\njnz 1f\nincl %eax\n1:\n"                                     \
  "movq (%rdi), %rbx\nmovq 8(%rdi), %rbp\nmovq 16(%rdi), %r12\nmovq 24(%rdi), %r13\n"              \
  "movq 32(%rdi), %r14\nmovq 40(%rdi), %r15\nmovq 48(%rdi), %rsp\njmpq *56(%rdi)\n"
#elif defined(__aarch64__)
#define SETJMP                                                                                     \
  "stp x19, x20, [x0]\nstp x21, x22, [x0, #16]\nstp x23, x24, [x0, #32]\n"                         \
  "stp x25, x26, [x0, #48]\nstp x27, x28, [x0, #64]\nstp x29, x30, [x0, #80]\n"                    \
  "mov x2, sp\nstr x2, [x0, #104]\nstp d8, d9, [x0, #112]\nstp d10, d11, [x0, #128]\n"             \
  "stp d12, d13, [x0, #144]\nstp d14, d15, [x0, #160]\nmov w0, #0\nret\n"
#define LONGJMP                                                                                    \
  "ldp x19, x20, [x0]\nldp x21, x22, [x0, #16]\nldp x23, x24, [x0, #32]\n"                         \
  "ldp x25, x26, [x0, #48]\nldp x27, x28, [x0, #64]\nldp x29, x30, [x0, #80]\n"                    \
  "ldr x2, [x0, #104]\nmov sp, x2\nldp d8, d9, [x0, #112]\nldp d10, d11, [x0, #128]\n"             \
  "ldp d12, d13, [x0, #144]\nldp d14, d15, [x0, #160]\ncmp w1, #0\ncsinc w0, w1, wzr, ne\nret\n"
#elif defined(__riscv)
#if __riscv_xlen == 64
#define STORE(register, place) "sd " register ", 8*" #place "(a0)\n"
#define LOAD(register, place) "ld " register ", 8*" #place "(a0)\n"
#else
#define STORE(register, place) "sw " register ", 4*" #place "(a0)\n"
#define LOAD(register, place) "lw " register ", 4*" #place "(a0)\n"
#endif
#define EACH(WITH)                                                                                 \
  WITH("s0", 0) WITH("s1", 1) WITH("s2", 2) WITH("s3", 3) WITH("s4", 4) WITH("s5", 5) WITH("s6", 6) \
  WITH("s7", 7) WITH("s8", 8) WITH("s9", 9) WITH("s10", 10) WITH("s11", 11) WITH("sp", 12)         \
  WITH("ra", 13)
#ifdef __riscv_float_abi_double
/* Behind the integer registers, aligned to 8 bytes: 14 words of 8 or 4 bytes are. */
#if __riscv_xlen == 64
#define FLOATS "112"
#else
#define FLOATS "56"
#endif
#define STORE_FLOAT(register, place) "fsd " register ", " FLOATS "+8*" #place "(a0)\n"
#define LOAD_FLOAT(register, place) "fld " register ", " FLOATS "+8*" #place "(a0)\n"
#define EACH_FLOAT(WITH)                                                                           \
  WITH("fs0", 0) WITH("fs1", 1) WITH("fs2", 2) WITH("fs3", 3) WITH("fs4", 4) WITH("fs5", 5)        \
  WITH("fs6", 6) WITH("fs7", 7) WITH("fs8", 8) WITH("fs9", 9) WITH("fs10", 10) WITH("fs11", 11)
#else
#define EACH_FLOAT(WITH)
#endif
#define SETJMP EACH(STORE) EACH_FLOAT(STORE_FLOAT) "li a0, 0\nret\n"
#define LONGJMP EACH(LOAD) EACH_FLOAT(LOAD_FLOAT) "seqz a0, a1\nadd a0, a0, a1\nret\n"
#endif

FUNCTION("setjmp", SETJMP);
FUNCTION("longjmp", LONGJMP);
__asm__(".globl _setjmp\n.set _setjmp, setjmp\n.globl _longjmp\n.set _longjmp, longjmp\n");
