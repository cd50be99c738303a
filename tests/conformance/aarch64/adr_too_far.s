# An address out of range of adr is an error.
# OPTIONS: -abs ext=0x7fff00001000
# STATUS: 1
	.globl	main
	.type	main,@function
main:
	adr	x0, ext
	.size	main, .-main

# jitlink-check: main = main
