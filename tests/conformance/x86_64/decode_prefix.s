# A lock prefix is an instruction of its own.
	.globl	main
	.type	main,@function
main:
	lock	addl $1, target(%rip)
	.size	main, .-main
	.data
	.globl	target
target:
	.long	1
	.size	target, .-target

# jitlink-check: next_pc(main) = main+1
# jitlink-check: decode_operand(main + 1, 3) = target - (main + 8)
