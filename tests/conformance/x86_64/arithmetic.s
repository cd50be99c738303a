# Operators have no precedence, and wrap around.
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main

# jitlink-check: 1+2<<3 = 24
# jitlink-check: 0xf0|0x0f&0x3c = 0x3c
# jitlink-check: 5-2-1 = 2
# jitlink-check: 0-1 = 0xffffffffffffffff
# jitlink-check: 1<<63>>63 = 1
# jitlink-check: 010 = 8
# jitlink-check: (1+(2<<3)) = 17
