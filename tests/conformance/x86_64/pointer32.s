# A pointer of 32 bits without a sign.
	.globl	main
	.type	main,@function
main:
	movl	$target, %edi
	.size	main, .-main
	.data
	.globl	target
target:
	.quad	1
	.size	target, .-target

# jitlink-check: decode_operand(main, 1) = target
# jitlink-check: *{4}(main + 1) = target
