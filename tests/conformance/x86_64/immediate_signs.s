# Immediate operands shorter than the register have a sign.
	.globl	main
	.type	main,@function
main:
	movq	$-5, %rax
	movl	$0xfffffff0, %ecx
	pushq	$-2
	.size	main, .-main

# jitlink-check: decode_operand(main, 1) = 0-5
# jitlink-check: decode_operand(main + 7, 1) = 0xfffffff0
# jitlink-check: decode_operand(main + 12, 0)[31:0] = 0xfffffffe
