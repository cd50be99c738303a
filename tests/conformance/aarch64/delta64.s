# A distance of 64 bits.
	.globl	main
	.type	main,@function
main:
	ret
	.size	main, .-main
	.data
	.globl	distance
distance:
	.xword	main - .
	.size	distance, .-distance

# jitlink-check: *{8}distance = main - distance
