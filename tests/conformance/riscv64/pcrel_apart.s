# The LO12 of an address may be apart from its HI20.
	.option	norelax
	.globl	main
	.type	main,@function
main:
	auipc	a0, %pcrel_hi(target)
	nop
	addi	a0, a0, %pcrel_lo(main)
	.size	main, .-main
	.data
	.globl	target
target:
	.quad	1, 2
	.size	target, .-target

# jitlink-check: decode_operand(main, 1) = (target - main+0x800)[31:12]
# jitlink-check: decode_operand(main + 6, 2)[11:0] = (target - main)[11:0]
