# The page of an address before the code.
	.globl	main
	.type	main,@function
main:
	adrp	x1, target
	nop
	ldr	x0, [x1, :lo12:target]
	.size	main, .-main
	.data
	.globl	target
target:
	.quad	1, 2, 3, 4
	.size	target, .-target

# jitlink-check: decode_operand(main, 1) = target[47:12] - main[47:12]
