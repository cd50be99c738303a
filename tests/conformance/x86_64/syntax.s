# Malformed expressions.
# STATUS: 1
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main

# jitlink-check: 1 + 2 = 3
# jitlink-check: 1 == 1
# jitlink-check: (main = main
# jitlink-check: main[1 = 1
# jitlink-check: * main = 0
# jitlink-check: = 1
# jitlink-check: -1 = 1
