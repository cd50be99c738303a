# A hidden symbol is known.
	.globl	main
	.type	main,@function
main:
	bl	callee
	.size	main, .-main
	.hidden	callee
	.globl	callee
	.type	callee,@function
callee:
	ret
	.size	callee, .-callee

# jitlink-check: decode_operand(main, 0) = (callee - main)[27:2]
