# A distance of 32 bits.
	.option	norelax
	.globl	main
	.type	main,@function
main:
	ret
	.size	main, .-main
	.data
	.globl	distance
distance:
	.word	main - .
	.size	distance, .-distance

# jitlink-check: *{4}distance = (main - distance)[31:0]
