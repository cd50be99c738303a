# Loads and calls share the GOT entry of a symbol.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	movq	ext@GOTPCREL(%rip), %rax
	callq	ext
	.size	main, .-main

# jitlink-check: decode_operand(main, 4) = got_addr(got_shared.o, ext) - next_pc(main)
# jitlink-check: *{8}(got_addr(got_shared.o, ext)) = ext
