# The shift of a register operand.
	.globl	main
	.type	main,@function
main:
	add	x0, x1, x2, lsl #3
	sub	x0, x1, #1, lsl #12
	.size	main, .-main

# jitlink-check: decode_operand(main, 3) = 3
# jitlink-check: decode_operand(main + 4, 3) = 12
