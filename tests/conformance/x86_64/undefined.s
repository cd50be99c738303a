# A missing symbol is an error.
# STATUS: 1
	.globl	main
	.type	main,@function
main:
	callq	nobody_has_this
	.size	main, .-main

# jitlink-check: main = main
