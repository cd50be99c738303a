# An addition of a GOT entry reads the entry.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	addq	ext@GOTPCREL(%rip), %rcx
	.size	main, .-main

# jitlink-check: decode_operand(main, 5) = got_addr(got_add.o, ext) - next_pc(main)
