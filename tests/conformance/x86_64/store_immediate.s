# An immediate operand of four bytes follows the field.
	.globl	main
	.type	main,@function
main:
	movl	$7, target(%rip)
	.size	main, .-main
	.data
	.globl	target
target:
	.long	1
	.size	target, .-target

# jitlink-check: decode_operand(main, 3) = target - next_pc(main)
# jitlink-check: decode_operand(main, 5) = 7
