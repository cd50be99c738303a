# The content of an address without memory is zero.
# OPTIONS: -abs unused=0x99
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main

# jitlink-check: *{8}unused = 0
# jitlink-check: *{1}(0) = 0
