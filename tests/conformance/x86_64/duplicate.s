# Two strong definitions are an error.
# STATUS: 1
# jitlink-check: main = main

#--- first.s
	.globl	main
	.type	main,@function
main:
	callq	callee
	.size	main, .-main
	.globl	callee
	.type	callee,@function
callee:
	retq
	.size	callee, .-callee
#--- second.s
	.globl	callee
	.type	callee,@function
callee:
	retq
	.size	callee, .-callee
