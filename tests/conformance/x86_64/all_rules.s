# All rules are evaluated, also after one that fails.
# STATUS: 1
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main

# jitlink-check: 1 = 2
# jitlink-check: main = main
# jitlink-check: undefined = 1
# jitlink-check: 3 = 4
