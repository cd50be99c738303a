# Short forms on the accumulator have an immediate operand only.
	.globl	main
	.type	main,@function
main:
	addq	$0x12345, %rax
	addq	$0x12345, %rcx
	cmpl	$0x12345, %eax
	.size	main, .-main

# jitlink-check: decode_operand(main, 0) = 0x12345
# jitlink-check: decode_operand(main + 6, 2) = 0x12345
# jitlink-check: decode_operand(main + 13, 0) = 0x12345
