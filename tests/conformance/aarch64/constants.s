# The operands of moves.
	.globl	main
	.type	main,@function
main:
	mov	x0, #-1
	mov	w1, #0x12340000
	mov	x2, #7
	.size	main, .-main

# jitlink-check: decode_operand(main, 1) = 0
# jitlink-check: decode_operand(main + 4, 1) = 0x1234
# jitlink-check: decode_operand(main + 4, 2) = 16
# jitlink-check: decode_operand(main + 8, 1) = 7
