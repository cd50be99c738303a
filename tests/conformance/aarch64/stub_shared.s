# Two calls to one symbol share a stub.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	bl	ext
	bl	ext
	.size	main, .-main

# jitlink-check: decode_operand(main, 0) = (stub_addr(stub_shared.o, ext) - main)[27:2]
# jitlink-check: decode_operand(main + 4, 0) = (stub_addr(stub_shared.o, ext) - (main + 4))[27:2]
