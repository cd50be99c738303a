# The bounds of a section whose name is an identifier.
	.globl	main
	.type	main,@function
main:
	leaq	__start_numbers(%rip), %rax
	leaq	__stop_numbers(%rip), %rcx
	.size	main, .-main
	.section	numbers,"aw"
	.globl	number
number:
	.quad	5,6

# jitlink-check: decode_operand(main, 4) = number - next_pc(main)
# jitlink-check: decode_operand(main + 7, 4) = (number + 16) - (main + 14)
