# A pointer of 32 bits.
	.globl	main
	.type	main,@function
main:
	ret
	.size	main, .-main
	.data
	.globl	pointer
pointer:
	.word	main
	.size	pointer, .-pointer

# jitlink-check: *{4}pointer = main
