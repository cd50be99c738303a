# A pointer with a negative addend.
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
	.data
	.globl	pointer
pointer:
	.quad	main-16
	.size	pointer, .-pointer

# jitlink-check: *{8}pointer = main-16
