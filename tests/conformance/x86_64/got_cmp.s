# A comparison with a GOT entry reads the entry.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	cmpq	ext@GOTPCREL(%rip), %rax
	.size	main, .-main

# jitlink-check: decode_operand(main, 4) = got_addr(got_cmp.o, ext) - next_pc(main)
