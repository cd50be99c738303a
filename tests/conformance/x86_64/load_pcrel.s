# A PC-relative load.
	.globl	main
	.type	main,@function
main:
	movl	target(%rip), %ecx
	.size	main, .-main
	.data
	.globl	target
target:
	.long	1
	.size	target, .-target

# jitlink-check: decode_operand(main, 4) = target - next_pc(main)
