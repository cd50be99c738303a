# The encoded immediate of a logical instruction.
	.globl	main
	.type	main,@function
main:
	and	x0, x1, #0xff
	.size	main, .-main

# jitlink-check: decode_operand(main, 2) = 0x1007
