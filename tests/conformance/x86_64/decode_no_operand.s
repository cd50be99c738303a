# An index beyond the last operand is an error.
# STATUS: 1
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

# jitlink-check: decode_operand(main, 1) = 0
