# A constant for a vector register.
	.globl	main
	.type	main,@function
main:
	movsd	target(%rip), %xmm1
	.size	main, .-main
	.section	.rodata,"a"
	.globl	target
target:
	.quad	1
	.size	target, .-target

# jitlink-check: decode_operand(main, 4) = target - next_pc(main)
