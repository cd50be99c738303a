# An immediate operand of one byte follows the field.
	.globl	main
	.type	main,@function
main:
	cmpb	$-3, target(%rip)
	.size	main, .-main
	.data
	.globl	target
target:
	.byte	1
	.size	target, .-target

# jitlink-check: decode_operand(main, 3) = target - next_pc(main)
# jitlink-check: decode_operand(main, 5)[7:0] = 0xfd
