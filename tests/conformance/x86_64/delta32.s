# A distance of 32 bits.
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
	.data
	.globl	distance
distance:
	.long	main - .
	.size	distance, .-distance

# jitlink-check: *{4}distance = (main - distance)[31:0]
