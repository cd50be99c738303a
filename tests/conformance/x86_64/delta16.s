# A distance of 16 bits.
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
	.data
	.globl	distance
distance:
	.short	near - .
	.size	distance, .-distance
	.section	.data.near,"aw"
	.globl	near
near:
	.quad	0

# jitlink-check: *{2}distance = (near - distance)[15:0]
