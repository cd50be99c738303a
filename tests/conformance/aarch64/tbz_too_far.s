# Test and branch, which is no call, goes through no stub.
# OPTIONS: -abs ext=0x7fff00001000
# STATUS: 1
	.globl	main
	.type	main,@function
main:
	tbz	x5, #37, ext
	.size	main, .-main

# jitlink-check: main = main
