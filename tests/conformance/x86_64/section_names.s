# A section of any name has an address.
	.globl	main
	.type	main,@function
main:
	leaq	number(%rip), %rax
	.size	main, .-main
	.section	my.data,"aw"
	.globl	number
number:
	.quad	5

# jitlink-check: section_addr(section_names.o, my.data) = number
