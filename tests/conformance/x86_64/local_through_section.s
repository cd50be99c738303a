# A local symbol is addressed through its section.
	.globl	main
	.type	main,@function
main:
	leaq	secret(%rip), %rax
	.size	main, .-main
	.section	.data.secret,"aw"
secret:
	.quad	77

# jitlink-check: decode_operand(main, 4) = section_addr(local_through_section.o, .data.secret) - next_pc(main)
# jitlink-check: *{8}(section_addr(local_through_section.o, .data.secret)) = 77
