# A register is no immediate operand.
# STATUS: 1
	.option	norelax
	.globl	main
	.type	main,@function
main:
	jalr	8(a0)
	.size	main, .-main

# jitlink-check: decode_operand(main, 0) = 0
