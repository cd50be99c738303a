# A pointer of 16 bits.
# OPTIONS: -abs ext=0x1234
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
	.data
	.globl	pointer
pointer:
	.short	ext
	.size	pointer, .-pointer

# jitlink-check: *{2}pointer = 0x1234
