# An alias of a symbol satisfies references.
# OPTIONS: -alias other=callee
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
	.globl	callee
	.type	callee,@function
callee:
	retq
	.size	callee, .-callee
	.data
	.globl	pointer
pointer:
	.quad	other
	.size	pointer, .-pointer

# jitlink-check: *{8}pointer = callee
