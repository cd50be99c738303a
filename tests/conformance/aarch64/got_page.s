# A GOT entry of a far target is loaded by page and offset.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	adrp	x0, :got:ext
	ldr	x0, [x0, :got_lo12:ext]
	.size	main, .-main

# jitlink-check: decode_operand(main, 1) = got_addr(got_page.o, ext)[47:12] - main[47:12]
# jitlink-check: decode_operand(main + 4, 2) = got_addr(got_page.o, ext)[11:3]
# jitlink-check: *{8}(got_addr(got_page.o, ext)) = ext
