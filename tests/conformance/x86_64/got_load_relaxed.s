# A load of a GOT entry whose target is in range becomes lea.
# SLAB: 0x7f0000000000
	.globl	main
	.type	main,@function
main:
	movq	target@GOTPCREL(%rip), %rax
	.size	main, .-main
	.data
	.globl	target
target:
	.quad	1
	.size	target, .-target

# jitlink-check: *{1}(main + 1) = 0x8d
# jitlink-check: decode_operand(main, 4) = target - next_pc(main)
# jitlink-check: *{8}(got_addr(got_load_relaxed.o, target)) = target
