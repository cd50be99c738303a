# Bytes that are no instruction have no operands.
# STATUS: 1
	.globl	main
	.type	main,@function
main:
	.byte	6
	.size	main, .-main

# jitlink-check: decode_operand(main, 0) = 0
# jitlink-check: next_pc(main) = main+1
