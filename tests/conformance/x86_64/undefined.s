# A missing symbol is an error.
# STATUS: 1
	.globl	main
	.type	main,@function
main:
	callq	undefined
	.size	main, .-main

# jitlink-check: main = main
