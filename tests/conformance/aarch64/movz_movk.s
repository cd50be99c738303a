# An address in four parts of 16 bits.
# OPTIONS: -abs ext=0x123456789abcdef0
	.globl	main
	.type	main,@function
main:
	movz	x0, #:abs_g3:ext
	movk	x0, #:abs_g2_nc:ext
	movk	x0, #:abs_g1_nc:ext
	movk	x0, #:abs_g0_nc:ext
	.size	main, .-main

# jitlink-check: decode_operand(main, 1) = ext[62:48]
# jitlink-check: decode_operand(main, 2) = 48
# jitlink-check: decode_operand(main + 4, 2) = ext[47:32]
# jitlink-check: decode_operand(main + 4, 3) = 32
# jitlink-check: decode_operand(main + 8, 2) = ext[31:16]
# jitlink-check: decode_operand(main + 12, 2) = ext[15:0]
