# A load of a GOT entry whose target is out of range is not relaxed.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	movq	ext@GOTPCREL(%rip), %rax
	.size	main, .-main

# jitlink-check: *{1}(main + 1) = 0x8b
# jitlink-check: decode_operand(main, 4) = got_addr(got_load_kept.o, ext) - next_pc(main)
# jitlink-check: *{8}(got_addr(got_load_kept.o, ext)) = ext
