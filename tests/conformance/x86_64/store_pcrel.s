# A PC-relative store.
	.globl	main
	.type	main,@function
main:
	movq	%rdx, target(%rip)
	.size	main, .-main
	.data
	.globl	target
target:
	.quad	1
	.size	target, .-target

# jitlink-check: decode_operand(main, 3) = target - next_pc(main)
