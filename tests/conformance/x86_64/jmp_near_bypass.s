# A jump to an address in range needs no stub.
# OPTIONS: -abs ext=0x11000000
	.globl	main
	.type	main,@function
main:
	jmp	ext@PLT
	.size	main, .-main

# jitlink-check: decode_operand(main, 0) = ext - next_pc(main)
