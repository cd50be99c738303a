# A pointer in data.
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
	.data
	.globl	pointer
pointer:
	.quad	main
	.size	pointer, .-pointer

# jitlink-check: *{8}pointer = main
