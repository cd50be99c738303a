# A call in two parts.
	.option	norelax
	.globl	main
	.type	main,@function
main:
	call	callee
	.size	main, .-main
	.globl	callee
	.type	callee,@function
callee:
	ret
	.size	callee, .-callee

# jitlink-check: decode_operand(main, 1) = (callee - main+0x800)[31:12]
# jitlink-check: decode_operand(main + 4, 2)[11:0] = (callee - main)[11:0]
