# Two calls to one symbol share a stub.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	callq	ext
	callq	ext
	.size	main, .-main

# jitlink-check: decode_operand(main, 0) = stub_addr(stub_shared.o, ext) - next_pc(main)
# jitlink-check: decode_operand(main + 5, 0) = stub_addr(stub_shared.o, ext) - (main + 10)
