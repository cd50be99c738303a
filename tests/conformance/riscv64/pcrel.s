# A PC-relative address in two parts.
	.option	norelax
	.globl	main
	.type	main,@function
main:
	lla	a0, target
	.size	main, .-main
	.data
	.globl	target
target:
	.quad	1, 2
	.size	target, .-target

# jitlink-check: decode_operand(main, 1) = (target - main+0x800)[31:12]
# jitlink-check: decode_operand(main + 4, 2)[11:0] = (target - main)[11:0]
