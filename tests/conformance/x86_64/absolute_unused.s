# An unreferenced symbol of the command is known.
# OPTIONS: -abs unused=0x99
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main

# jitlink-check: unused = 0x99
