# A jump out of range goes through a stub.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	jmp	ext
	.size	main, .-main

# jitlink-check: decode_operand(main, 0) = stub_addr(jmp_far_stub.o, ext) - next_pc(main)
