# An operand of a vector instruction that modifies its register.
	.globl	main
	.type	main,@function
main:
	addsd	target(%rip), %xmm1
	.size	main, .-main
	.section	.rodata,"a"
	.globl	target
target:
	.quad	1
	.size	target, .-target

# jitlink-check: decode_operand(main, 5) = target - next_pc(main)
