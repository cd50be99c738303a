# A store to an absolute address.
	.option	norelax
	.globl	main
	.type	main,@function
main:
	lui	a0, %hi(target)
	sd	a1, %lo(target)(a0)
	.size	main, .-main
	.data
	.globl	target
target:
	.quad	1, 2
	.size	target, .-target

# jitlink-check: decode_operand(main, 1) = (target + 0x800)[31:12]
# jitlink-check: decode_operand(main + 4, 2)[11:0] = target[11:0]
