# A GOT load that may not be relaxed uses its GOT entry.
# FLAGS: -Wa,-mrelax-relocations=no
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

# jitlink-check: *{1}(main + 1) = 0x8b
# jitlink-check: decode_operand(main, 4) = got_addr(got_unrelaxable.o, target) - next_pc(main)
