# A frame description refers to its function.
	.globl	main
main:
	.cfi_startproc
	ret
	.cfi_endproc
	.size	main, .-main

# jitlink-check: *{4}(section_addr(eh_frame.o, .eh_frame) + 0x1c) = (main - (section_addr(eh_frame.o, .eh_frame) + 0x1c))[31:0]
