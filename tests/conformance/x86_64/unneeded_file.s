# A file without references to it is not linked.
# STATUS: 1
# jitlink-check: callee = callee

#--- first.s
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
#--- second.s
	.globl	callee
	.type	callee,@function
callee:
	retq
	.size	callee, .-callee
