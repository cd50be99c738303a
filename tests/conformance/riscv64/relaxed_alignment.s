# Padding is removed where code gets shorter.
	.option	relax
	.globl	main
	.type	main,@function
main:
	call	callee
	.p2align	3
	nop
	ret
	.size	main, .-main
	.globl	callee
	.type	callee,@function
callee:
	ret
	.size	callee, .-callee

# jitlink-check: callee[1:0] = 0
# jitlink-check: decode_operand(main, 1) = callee - main
