# A short jump in two bytes.
	.option	norelax
	.globl	main
	.type	main,@function
main:
	.reloc	., R_RISCV_RVC_JUMP, callee
	.half	0xa001
	.size	main, .-main
	.section	.text.other,"ax"
	.globl	callee
	.type	callee,@function
callee:
	ret
	.size	callee, .-callee

# jitlink-check: decode_operand(main, 0) = callee - main
# jitlink-check: next_pc(main) = main+2
