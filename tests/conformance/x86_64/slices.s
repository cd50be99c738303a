# Slices cut bits out of values.
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main

# jitlink-check: 0x1234[15:8] = 0x12
# jitlink-check: (0x1234)[3:0] = 4
# jitlink-check: 1+0x1234[15:8] = 0x13
# jitlink-check: 0x80[62:0] = 0x80
