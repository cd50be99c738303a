# A register is no immediate operand.
# STATUS: 1
	.globl	main
	.type	main,@function
main:
	movq	%rax, %rcx
	.size	main, .-main

# jitlink-check: decode_operand(main, 0) = 0
