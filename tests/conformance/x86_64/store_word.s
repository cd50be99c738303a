# An immediate operand of two bytes follows the field.
	.globl	main
	.type	main,@function
main:
	movw	$0x8001, target(%rip)
	.size	main, .-main
	.data
	.globl	target
target:
	.short	1
	.size	target, .-target

# jitlink-check: decode_operand(main, 3) = target - next_pc(main)
# jitlink-check: decode_operand(main, 5) = 0x8001
