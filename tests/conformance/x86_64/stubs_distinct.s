# Each symbol has a stub of its own.
# OPTIONS: -abs ext=0x7fff00001000 -abs ext2=0x7fff00002000
	.globl	main
	.type	main,@function
main:
	callq	ext
	callq	ext2
	.size	main, .-main

# jitlink-check: decode_operand(main, 0) = stub_addr(stubs_distinct.o, ext) - next_pc(main)
# jitlink-check: decode_operand(main + 5, 0) = stub_addr(stubs_distinct.o, ext2) - (main + 10)
# jitlink-check: *{8}(got_addr(stubs_distinct.o, ext2)) = ext2
