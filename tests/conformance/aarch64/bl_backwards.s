# A call backwards has a negative operand.
	.globl	callee
	.type	callee,@function
callee:
	ret
	.size	callee, .-callee
	.globl	main
	.type	main,@function
main:
	bl	callee
	.size	main, .-main

# jitlink-check: decode_operand(main, 0) = 0-1
# jitlink-check: *{4}main = 0x97ffffff
