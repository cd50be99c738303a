# A rule may take several lines.
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main

# jitlink-check: main + \
# jitlink-check:   4 = \
# jitlink-check:   main+4
