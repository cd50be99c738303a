# Test and branch to another section.
	.globl	main
	.type	main,@function
main:
	tbz	x3, #33, callee
	.size	main, .-main
	.section	.text.other,"ax"
	.globl	callee
	.type	callee,@function
callee:
	ret
	.size	callee, .-callee

# jitlink-check: decode_operand(main, 1) = 33
# jitlink-check: decode_operand(main, 2) = (callee - main)[15:2]
