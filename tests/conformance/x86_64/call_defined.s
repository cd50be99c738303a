# A call to a function of the object is direct.
	.globl	main
	.type	main,@function
main:
	callq	callee
	.size	main, .-main
	.globl	callee
	.type	callee,@function
callee:
	retq
	.size	callee, .-callee

# jitlink-check: decode_operand(main, 0) = callee - next_pc(main)
