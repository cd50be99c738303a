# Pairs of registers with and without write-back.
	.globl	main
	.type	main,@function
main:
	stp	x29, x30, [sp, #-16]!
	ldp	x29, x30, [sp, #32]
	.size	main, .-main

# jitlink-check: decode_operand(main, 4) = 0-2
# jitlink-check: decode_operand(main + 4, 3) = 4
