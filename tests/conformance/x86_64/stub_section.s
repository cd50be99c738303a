# The stubs are a section of each file that uses them.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	callq	ext
	.size	main, .-main

# jitlink-check: section_addr(stub_section.o, $__STUBS) = stub_addr(stub_section.o, ext)
