# A call with @PLT goes through a stub.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	callq	ext@PLT
	.size	main, .-main

# jitlink-check: decode_operand(main, 0) = stub_addr(call_plt_far.o, ext) - next_pc(main)
