# A rule whose sides differ fails.
# STATUS: 1
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main

# jitlink-check: main = main+1
