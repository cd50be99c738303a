# A pointer of 8 bits to a larger address is an error.
# OPTIONS: -abs ext=0x156
# STATUS: 1
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

# jitlink-check: main = main
