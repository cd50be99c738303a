# A call out of range goes through a stub.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	callq	ext
	.size	main, .-main

# jitlink-check: decode_operand(main, 0) = stub_addr(call_far_stub.o, ext) - next_pc(main)
# jitlink-check: *{8}(got_addr(call_far_stub.o, ext)) = ext
