# A section of any name has an address.
	.globl	main
	.type	main,@function
main:
	leaq	thing(%rip), %rax
	.size	main, .-main
	.section	my.data,"aw"
	.globl	thing
thing:
	.quad	5

# jitlink-check: section_addr(section_names.o, my.data) = thing
