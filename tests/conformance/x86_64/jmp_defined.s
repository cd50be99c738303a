# A jump to a function of the object is direct.
	.globl	main
	.type	main,@function
main:
	jmp	callee
	.size	main, .-main
	.section	.text.other,"ax"
	.globl	callee
	.type	callee,@function
callee:
	retq
	.size	callee, .-callee

# jitlink-check: decode_operand(main, 0) = callee - next_pc(main)
