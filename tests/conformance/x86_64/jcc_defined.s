# A conditional jump reaches another section.
	.globl	main
	.type	main,@function
main:
	jne	callee
	.size	main, .-main
	.section	.text.other,"ax"
	.globl	callee
	.type	callee,@function
callee:
	retq
	.size	callee, .-callee

# jitlink-check: decode_operand(main, 0) = callee - next_pc(main)
# jitlink-check: decode_operand(main, 1) = 5
