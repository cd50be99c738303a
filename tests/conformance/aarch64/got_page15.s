# A GOT entry by its offset in the page of the table.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	adrp	x0, _GLOBAL_OFFSET_TABLE_
	ldr	x0, [x0, :gotpage_lo15:ext]
	.size	main, .-main

# jitlink-check: (decode_operand(main + 4, 2)<<3) = got_addr(got_page15.o, ext) - (section_addr(got_page15.o, $__GOT) & 0xfffffffffffff000)
