# Without a REX prefix the load of a far target is not relaxed.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	movl	ext@GOTPCREL(%rip), %eax
	.size	main, .-main

# jitlink-check: *{1}main = 0x8b
# jitlink-check: decode_operand(main, 4) = got_addr(got_load_short_kept.o, ext) - next_pc(main)
