# The offset of a store.
	.globl	main
	.type	main,@function
main:
	adrp	x1, target
	str	x0, [x1, :lo12:target]
	.size	main, .-main
	.data
	.globl	target
target:
	.quad	1, 2, 3, 4
	.size	target, .-target

# jitlink-check: decode_operand(main + 4, 2) = target[11:3]
