# The number of a member must be right.
# INPUTS: first.o libx.a(third.o second.o)
# STATUS: 1
# jitlink-check: section_addr(libx.a[0](second.o), .text) = callee

#--- first.s
	.globl	main
	.type	main,@function
main:
	callq	callee
	.size	main, .-main
#--- second.s
	.globl	callee
	.type	callee,@function
callee:
	retq
	.size	callee, .-callee
#--- third.s
	.globl	other
	.type	other,@function
other:
	retq
	.size	other, .-other
