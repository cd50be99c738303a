# The bounds of a section whose name is an identifier.
	.globl	main
	.type	main,@function
main:
	leaq	__start_things(%rip), %rax
	leaq	__stop_things(%rip), %rcx
	.size	main, .-main
	.section	things,"aw"
	.globl	thing
thing:
	.quad	5,6

# jitlink-check: decode_operand(main, 4) = thing - next_pc(main)
# jitlink-check: decode_operand(main + 7, 4) = (thing + 16) - (main + 14)
