# A jump, which is no call, goes through no stub.
# OPTIONS: -abs ext=0x7fff00001000
# STATUS: 1
	.option	norelax
	.globl	main
	.type	main,@function
main:
	j	ext
	.size	main, .-main

# jitlink-check: main = main
