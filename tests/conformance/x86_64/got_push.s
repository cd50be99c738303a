# A push of a GOT entry reads the entry.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	pushq	ext@GOTPCREL(%rip)
	.size	main, .-main

# jitlink-check: decode_operand(main, 3) = got_addr(got_push.o, ext) - next_pc(main)
