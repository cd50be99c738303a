# With -phony-externals an undefined symbol has an address.
# OPTIONS: -phony-externals
	.globl	main
	.type	main,@function
main:
	callq	undefined
	callq	callee
	.size	main, .-main
	.globl	callee
	.type	callee,@function
callee:
	retq
	.size	callee, .-callee

# jitlink-check: decode_operand(main + 5, 0) = callee - (main + 10)
