# Without a REX prefix the load becomes lea, too.
# SLAB: 0x7f0000000000
	.globl	main
	.type	main,@function
main:
	movl	target@GOTPCREL(%rip), %eax
	.size	main, .-main
	.data
	.globl	target
target:
	.quad	1
	.size	target, .-target

# jitlink-check: *{1}main = 0x8d
# jitlink-check: decode_operand(main, 4) = target - next_pc(main)
