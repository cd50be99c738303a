# Conditions are the last operands of conditional moves and sets.
	.globl	main
	.type	main,@function
main:
	cmovneq	target(%rip), %rax
	sete	%al
	.size	main, .-main
	.data
	.globl	target
target:
	.quad	1
	.size	target, .-target

# jitlink-check: decode_operand(main, 5) = target - next_pc(main)
# jitlink-check: decode_operand(main, 7) = 5
# jitlink-check: decode_operand(main + 8, 1) = 4
