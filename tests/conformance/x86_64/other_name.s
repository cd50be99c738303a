# Rules of another name are not looked at.
# OPTIONS: -check-name other
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main

# jitlink-check: 1 = 2
# other: 1 = 1
