# A jump out of range goes through a stub.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	b	ext
	.size	main, .-main

# jitlink-check: decode_operand(main, 0) = (stub_addr(b_stub.o, ext) - main)[27:2]
