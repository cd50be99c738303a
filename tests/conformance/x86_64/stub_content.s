# A stub jumps to the address in its GOT entry.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	callq	ext
	.size	main, .-main

# jitlink-check: *{2}(stub_addr(stub_content.o, ext)) = 0x25ff
# jitlink-check: *{4}(stub_addr(stub_content.o, ext) + 2) = (got_addr(stub_content.o, ext) - (stub_addr(stub_content.o, ext) + 6))[31:0]
