# The content of a section starts before its first symbol.
	.globl	main
	.type	main,@function
main:
	leaq	second(%rip), %rax
	.size	main, .-main
	.data
	.quad	0x11
	.globl	second
second:
	.quad	0x22
	.size	second, .-second

# jitlink-check: section_addr(section_first_symbol.o, .data) = second
# jitlink-check: *{8}(section_addr(section_first_symbol.o, .data)) = 0x11
# jitlink-check: *{8}second = 0x22
