# A pointer of 32 bits in data.
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
	.data
	.globl	pointer
pointer:
	.long	main
	.size	pointer, .-pointer

# jitlink-check: *{4}pointer = main
