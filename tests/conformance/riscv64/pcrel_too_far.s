# An address out of range of auipc is an error.
# OPTIONS: -abs ext=0x7fff00001000
# STATUS: 1
	.option	norelax
	.globl	main
	.type	main,@function
main:
	lla	a0, ext
	.size	main, .-main

# jitlink-check: main = main
