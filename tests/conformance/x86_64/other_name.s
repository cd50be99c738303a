# Rules of another name are ignored.
# OPTIONS: -check-name other
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main

# jitlink-check: 1 = 2
# other: 1 = 1
