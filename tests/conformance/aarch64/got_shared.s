# Loads and calls share the GOT entry of a symbol.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	adrp	x0, :got:ext
	ldr	x0, [x0, :got_lo12:ext]
	bl	ext
	.size	main, .-main

# jitlink-check: decode_operand(main + 4, 2) = got_addr(got_shared.o, ext)[11:3]
# jitlink-check: *{8}(got_addr(got_shared.o, ext)) = ext
# jitlink-check: section_addr(got_shared.o, $__GOT) = got_addr(got_shared.o, ext)
