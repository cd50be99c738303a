# Without the entry point nothing is checked.
# STATUS: 1
	.globl	start
	.type	start,@function
start:
	retq
	.size	start, .-start

# jitlink-check: 1 = 2
