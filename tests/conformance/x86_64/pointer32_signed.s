# A pointer of 32 bits with a sign.
	.globl	main
	.type	main,@function
main:
	movq	$target, %rax
	.size	main, .-main
	.data
	.globl	target
target:
	.quad	1
	.size	target, .-target

# jitlink-check: decode_operand(main, 1) = target
