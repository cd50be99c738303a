# A load from a PC-relative address.
	.globl	main
	.type	main,@function
main:
	ldr	x0, target
	.size	main, .-main
	.data
	.globl	target
target:
	.quad	1, 2, 3, 4
	.size	target, .-target

# jitlink-check: decode_operand(main, 1)[18:0] = (target - main)[20:2]
