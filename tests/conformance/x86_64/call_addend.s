# The addend of a call.
	.globl	main
	.type	main,@function
main:
	callq	callee+2
	.size	main, .-main
	.section	.text.other,"ax"
	.globl	callee
	.type	callee,@function
callee:
	nop
	nop
	retq
	.size	callee, .-callee

# jitlink-check: decode_operand(main, 0) = callee+2- next_pc(main)
