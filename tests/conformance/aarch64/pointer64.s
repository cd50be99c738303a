# A pointer in data.
	.globl	main
	.type	main,@function
main:
	ret
	.size	main, .-main
	.data
	.globl	pointer
pointer:
	.quad	main+4
	.size	pointer, .-pointer

# jitlink-check: *{8}pointer = main+4
