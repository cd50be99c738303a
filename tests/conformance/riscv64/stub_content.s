# A stub loads its GOT entry and jumps to that address.
# OPTIONS: -abs ext=0x7fff00001000
	.option	norelax
	.globl	main
	.type	main,@function
main:
	call	ext
	.size	main, .-main

# jitlink-check: (*{4}stub_addr(stub_content.o, ext))[11:0] = 0xe17
# jitlink-check: *{4}(stub_addr(stub_content.o, ext) + 8) = 0x000e0067
