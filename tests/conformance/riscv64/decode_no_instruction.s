# Bytes that are no instruction have no operands.
# STATUS: 1
	.option	norelax
	.globl	main
	.type	main,@function
main:
	.word	0xffffffff
	.size	main, .-main

# jitlink-check: next_pc(main) = main+4
