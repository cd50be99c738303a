# A distance that does not fit 32 bits is an error.
# OPTIONS: -abs ext=0x7fff00001000
# STATUS: 1
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
	.data
	.globl	distance
distance:
	.long	ext - .
	.size	distance, .-distance

# jitlink-check: main = main
