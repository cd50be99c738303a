# A GOT entry is loaded.
# OPTIONS: -abs ext=0x7fff00001000
	.option	norelax
	.globl	main
	.type	main,@function
main:
	lga	a0, ext
	.size	main, .-main

# jitlink-check: decode_operand(main, 1) = (got_addr(got_load.o, ext) - main+0x800)[31:12]
# jitlink-check: decode_operand(main + 4, 2)[11:0] = (got_addr(got_load.o, ext) - main)[11:0]
# jitlink-check: *{8}(got_addr(got_load.o, ext)) = ext
