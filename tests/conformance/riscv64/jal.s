# A call of one instruction.
	.option	norelax
	.globl	main
	.type	main,@function
main:
	jal	callee
	.size	main, .-main
	.section	.text.other,"ax"
	.globl	callee
	.type	callee,@function
callee:
	ret
	.size	callee, .-callee

# jitlink-check: decode_operand(main, 1) = callee - main
