# A call out of range goes through a stub.
# OPTIONS: -abs ext=0x7fff00001000
	.option	norelax
	.globl	main
	.type	main,@function
main:
	call	ext
	.size	main, .-main

# jitlink-check: decode_operand(main, 1) = (stub_addr(call_stub.o, ext) - main+0x800)[31:12]
# jitlink-check: *{8}(got_addr(call_stub.o, ext)) = ext
