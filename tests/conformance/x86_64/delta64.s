# A distance of 64 bits.
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
	.data
	.globl	distance
distance:
	.quad	main - .
	.size	distance, .-distance

# jitlink-check: *{8}distance = main - distance
