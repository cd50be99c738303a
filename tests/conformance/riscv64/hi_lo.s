# An absolute address in two parts.
	.option	norelax
	.globl	main
	.type	main,@function
main:
	lui	a0, %hi(target)
	addi	a0, a0, %lo(target)
	.size	main, .-main
	.data
	.globl	target
target:
	.quad	1, 2
	.size	target, .-target

# jitlink-check: decode_operand(main, 1) = (target + 0x800)[31:12]
# jitlink-check: decode_operand(main + 4, 2)[11:0] = target[11:0]
