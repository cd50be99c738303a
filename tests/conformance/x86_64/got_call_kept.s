# A call through the GOT to a far target is not relaxed.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	callq	*ext@GOTPCREL(%rip)
	.size	main, .-main

# jitlink-check: *{2}main = 0x15ff
# jitlink-check: decode_operand(main, 3) = got_addr(got_call_kept.o, ext) - next_pc(main)
