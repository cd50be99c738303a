# An address of 32 bits with an index.
	.globl	main
	.type	main,@function
main:
	movl	target(,%rax,8), %ecx
	.size	main, .-main
	.data
	.globl	target
target:
	.quad	1
	.size	target, .-target

# jitlink-check: decode_operand(main, 2) = 8
# jitlink-check: decode_operand(main, 4) = target
