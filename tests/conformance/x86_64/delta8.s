# A distance of 8 bits.
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
	.data
	.globl	distance
distance:
	.byte	near - .
	.size	distance, .-distance
	.section	.data.near,"aw"
	.globl	near
near:
	.quad	0

# jitlink-check: *{1}distance = (near - distance)[7:0]
