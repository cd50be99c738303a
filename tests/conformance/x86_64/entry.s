# The entry point is another function.
# OPTIONS: -entry start
	.globl	start
	.type	start,@function
start:
	callq	callee
	.size	start, .-start
	.globl	callee
	.type	callee,@function
callee:
	retq
	.size	callee, .-callee

# jitlink-check: decode_operand(start, 0) = callee - next_pc(start)
