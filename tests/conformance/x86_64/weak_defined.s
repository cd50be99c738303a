# A weak definition is used where there is no other.
	.globl	main
	.type	main,@function
main:
	callq	callee
	.size	main, .-main
	.weak	callee
callee:
	retq

# jitlink-check: decode_operand(main, 0) = callee - next_pc(main)
