# The offsets of loads and stores.
	.option	norelax
	.globl	main
	.type	main,@function
main:
	lw	a0, -4(a1)
	sd	a0, 2040(a1)
	fld	fa0, 8(a1)
	.size	main, .-main

# jitlink-check: decode_operand(main, 2) = 0-4
# jitlink-check: decode_operand(main + 4, 2) = 2040
# jitlink-check: decode_operand(main + 8, 2) = 8
