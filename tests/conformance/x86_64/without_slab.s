# Checks hold wherever memory is.
# SLAB: none
	.globl	main
	.type	main,@function
main:
	callq	callee
	leaq	pointer(%rip), %rax
	.size	main, .-main
	.globl	callee
	.type	callee,@function
callee:
	retq
	.size	callee, .-callee
	.data
	.globl	pointer
pointer:
	.quad	callee
	.size	pointer, .-pointer

# jitlink-check: decode_operand(main, 0) = callee - next_pc(main)
# jitlink-check: *{8}pointer = callee
