# The offset of a load of 128 bits is in units of it.
	.globl	main
	.type	main,@function
main:
	adrp	x1, target+16
	ldr	q0, [x1, :lo12:target+16]
	.size	main, .-main
	.data
	.globl	target
	.p2align	4
target:
	.quad	1,2,3,4
	.size	target, .-target

# jitlink-check: decode_operand(main + 4, 2) = (target + 16)[11:4]
# jitlink-check: decode_operand(main, 1) = (target + 16)[47:12] - main[47:12]
