# The address of the GOT relative to code.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	leaq	_GLOBAL_OFFSET_TABLE_(%rip), %rbx
	movq	ext@GOTPCREL(%rip), %rax
	.size	main, .-main

# jitlink-check: decode_operand(main, 4) = _GLOBAL_OFFSET_TABLE_ - next_pc(main)
