# What nobody defines has an address without a use.
# OPTIONS: -phony-externals
	.globl	main
	.type	main,@function
main:
	callq	nobody
	callq	callee
	.size	main, .-main
	.globl	callee
	.type	callee,@function
callee:
	retq
	.size	callee, .-callee

# jitlink-check: decode_operand(main + 5, 0) = callee - (main + 10)
