# A PC-relative address of 21 bits.
	.globl	main
	.type	main,@function
main:
	adr	x0, target
	.size	main, .-main
	.data
	.globl	target
target:
	.quad	1, 2, 3, 4
	.size	target, .-target

# jitlink-check: decode_operand(main, 1) = (target - main)
