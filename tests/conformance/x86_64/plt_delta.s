# A distance to a function for position-independent tables.
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
	.data
	.globl	distance
distance:
	.long	callee@PLT - .
	.size	distance, .-distance
	.section	.text
	.globl	callee
	.type	callee,@function
callee:
	retq
	.size	callee, .-callee

# jitlink-check: *{4}distance = (callee - distance)[31:0]
