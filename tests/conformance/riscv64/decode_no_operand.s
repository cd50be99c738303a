# An index beyond the last operand is an error.
# STATUS: 1
	.option	norelax
	.globl	main
	.type	main,@function
main:
	lui	a0, 5
	.size	main, .-main

# jitlink-check: decode_operand(main, 2) = 0
