# Stubs have no kinds.
# OPTIONS: -abs ext=0x7fff00001000
# STATUS: 1
	.globl	main
	.type	main,@function
main:
	callq	ext
	.size	main, .-main

# jitlink-check: stub_addr(stub_kind_unknown.o, ext, x86) = 0
