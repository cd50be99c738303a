# Code that may not be relaxed keeps its length.
	.option	norelax
	.globl	main
	.type	main,@function
main:
	call	callee
	ret
	.size	main, .-main
	.globl	callee
	.type	callee,@function
callee:
	ret
	.size	callee, .-callee

# jitlink-check: callee - main = 10
