# Every instruction has four bytes.
	.globl	main
	.type	main,@function
main:
	nop
	.size	main, .-main

# jitlink-check: next_pc(main) = main+4
