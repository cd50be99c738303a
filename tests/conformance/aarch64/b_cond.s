# A conditional branch to another section.
	.globl	main
	.type	main,@function
main:
	b.ne	callee
	.size	main, .-main
	.section	.text.other,"ax"
	.globl	callee
	.type	callee,@function
callee:
	ret
	.size	callee, .-callee

# jitlink-check: decode_operand(main, 0) = 1
# jitlink-check: decode_operand(main, 1) = (callee - main)[20:2]
