# A pointer of 8 bits.
# OPTIONS: -abs ext=0x56
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
	.data
	.globl	pointer
pointer:
	.byte	ext
	.size	pointer, .-pointer

# jitlink-check: *{1}pointer = 0x56
