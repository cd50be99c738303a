# A PC-relative address.
	.globl	main
	.type	main,@function
main:
	leaq	target(%rip), %rdi
	.size	main, .-main
	.data
	.globl	target
target:
	.quad	1
	.size	target, .-target

# jitlink-check: decode_operand(main, 4) = target - next_pc(main)
