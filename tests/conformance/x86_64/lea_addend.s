# A PC-relative address with an addend.
	.globl	main
	.type	main,@function
main:
	leaq	target+12(%rip), %rdi
	.size	main, .-main
	.data
	.globl	target
target:
	.quad	1,2
	.size	target, .-target

# jitlink-check: decode_operand(main, 4) = (target + 12) - next_pc(main)
