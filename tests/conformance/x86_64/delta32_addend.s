# A distance from another place than the field.
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
	.data
	.globl	distance
distance:
	.long	0
	.long	main - distance
	.size	distance, .-distance

# jitlink-check: *{4}(distance + 4) = (main - distance)[31:0]
