# A call out of range goes through a stub.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	bl	ext
	.size	main, .-main

# jitlink-check: decode_operand(main, 0) = (stub_addr(bl_stub.o, ext) - main)[27:2]
# jitlink-check: *{8}(got_addr(bl_stub.o, ext)) = ext
