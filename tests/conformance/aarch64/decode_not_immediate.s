# A register is no immediate operand.
# STATUS: 1
	.globl	main
	.type	main,@function
main:
	ret
	.size	main, .-main

# jitlink-check: decode_operand(main, 0) = 0
