# A string without a name in a section of strings.
	.globl	main
	.type	main,@function
main:
	leaq	.Ltext(%rip), %rdi
	.size	main, .-main
	.section	.rodata.str1.1,"aMS",@progbits,1
.Ltext:
	.asciz	"hi"

# jitlink-check: decode_operand(main, 4) = section_addr(string_constant.o, .rodata.str1.1) - next_pc(main)
# jitlink-check: *{2}(section_addr(string_constant.o, .rodata.str1.1)) = 0x6968
