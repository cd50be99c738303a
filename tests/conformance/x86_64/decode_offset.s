# Later instructions are decoded by their offset.
	.globl	main
	.type	main,@function
main:
	nop
	callq	callee
	.size	main, .-main
	.globl	callee
	.type	callee,@function
callee:
	retq
	.size	callee, .-callee

# jitlink-check: decode_operand(main + 1, 0) = callee - (main + 6)
# jitlink-check: next_pc(main) = main+1
