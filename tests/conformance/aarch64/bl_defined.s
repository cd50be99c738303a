# A call to a function of the object is direct.
	.globl	main
	.type	main,@function
main:
	bl	callee
	.size	main, .-main
	.globl	callee
	.type	callee,@function
callee:
	ret
	.size	callee, .-callee

# jitlink-check: decode_operand(main, 0) = ((callee - main)>>2)[25:0]
