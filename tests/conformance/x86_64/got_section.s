# The GOT is a section of each file that uses it.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	movq	ext@GOTPCREL(%rip), %rax
	.size	main, .-main

# jitlink-check: section_addr(got_section.o, $__GOT) = got_addr(got_section.o, ext)
