# A pointer of 32 bits to an address above them is an error.
# OPTIONS: -abs ext=0x7fff00001000
# STATUS: 1
	.globl	main
	.type	main,@function
main:
	ret
	.size	main, .-main
	.data
	.globl	pointer
pointer:
	.word	ext
	.size	pointer, .-pointer

# jitlink-check: main = main
