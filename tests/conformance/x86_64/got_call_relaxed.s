# A call through the GOT becomes a direct one with a prefix.
	.globl	main
	.type	main,@function
main:
	callq	*callee@GOTPCREL(%rip)
	.size	main, .-main
	.globl	callee
	.type	callee,@function
callee:
	retq
	.size	callee, .-callee

# jitlink-check: *{2}main = 0xe867
