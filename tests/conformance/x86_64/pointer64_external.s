# A pointer to an absolute address.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
	.data
	.globl	pointer
pointer:
	.quad	ext
	.size	pointer, .-pointer

# jitlink-check: *{8}pointer = ext
# jitlink-check: ext = 0x7fff00001000
