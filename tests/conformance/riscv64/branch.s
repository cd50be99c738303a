# Conditional branches to another section.
	.option	norelax
	.globl	main
	.type	main,@function
main:
	.reloc	., R_RISCV_BRANCH, callee
	.word	0x00b50063
	.reloc	., R_RISCV_BRANCH, callee
	.word	0x00b56063
	.size	main, .-main
	.section	.text.other,"ax"
	.globl	callee
	.type	callee,@function
callee:
	ret
	.size	callee, .-callee

# jitlink-check: decode_operand(main, 2) = callee - main
# jitlink-check: decode_operand(main + 4, 2) = callee - (main + 4)
