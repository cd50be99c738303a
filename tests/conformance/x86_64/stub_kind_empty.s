# An empty kind matches every stub.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	callq	ext
	.size	main, .-main

# jitlink-check: stub_addr(stub_kind_empty.o, ext, ) = stub_addr(stub_kind_empty.o, ext)
