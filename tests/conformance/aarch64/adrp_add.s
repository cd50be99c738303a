# An address in two parts.
	.globl	main
	.type	main,@function
main:
	adrp	x0, target+8
	nop
	add	x0, x0, :lo12:target+8
	.size	main, .-main
	.data
	.globl	target
target:
	.quad	1, 2, 3, 4
	.size	target, .-target

# jitlink-check: decode_operand(main, 1) = ((target + 8)[47:12] - main[47:12])
# jitlink-check: decode_operand(main + 8, 2) = (target + 8)[11:0]
# jitlink-check: decode_operand(main + 8, 3) = 0
