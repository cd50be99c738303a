# Zero-fill memory is zero.
	.globl	main
	.type	main,@function
main:
	leaq	zeros(%rip), %rax
	.size	main, .-main
	.bss
	.globl	zeros
zeros:
	.zero	16
	.size	zeros, .-zeros

# jitlink-check: *{8}zeros = 0
# jitlink-check: decode_operand(main, 4) = zeros - next_pc(main)
