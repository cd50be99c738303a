# A pointer with an addend.
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
	.data
	.globl	pointer
pointer:
	.quad	main+0x1000
	.size	pointer, .-pointer

# jitlink-check: *{8}pointer = main+0x1000
