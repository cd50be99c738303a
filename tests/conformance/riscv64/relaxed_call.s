# A call in range becomes one instruction.
	.option	relax
	.globl	main
	.type	main,@function
main:
	call	callee
	ret
	.size	main, .-main
	.globl	callee
	.type	callee,@function
callee:
	ret
	.size	callee, .-callee

# jitlink-check: decode_operand(main, 1) = callee - main
# jitlink-check: callee - main = 6
