# A pointer as an immediate operand of 64 bits.
	.globl	main
	.type	main,@function
main:
	movabsq	$target, %rax
	.size	main, .-main
	.data
	.globl	target
target:
	.quad	1
	.size	target, .-target

# jitlink-check: decode_operand(main, 1) = target
