# A common symbol is zero and aligned.
	.globl	main
	.type	main,@function
main:
	leaq	tentative(%rip), %rax
	.size	main, .-main
	.comm	tentative,16,16

# jitlink-check: tentative[3:0] = 0
# jitlink-check: *{8}tentative = 0
# jitlink-check: decode_operand(main, 4) = tentative - next_pc(main)
