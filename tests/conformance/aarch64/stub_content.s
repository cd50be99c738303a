# A stub loads its GOT entry and jumps to that address.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	bl	ext
	.size	main, .-main

# jitlink-check: *{4}(stub_addr(stub_content.o, ext)) = 0x90000010|(((got_addr(stub_content.o, ext)>>12)-(stub_addr(stub_content.o, ext)>>12))[1:0]<<29)|(((got_addr(stub_content.o, ext)>>12)-(stub_addr(stub_content.o, ext)>>12))[20:2]<<5)
# jitlink-check: *{4}(stub_addr(stub_content.o, ext) + 8) = 0xd61f0200
