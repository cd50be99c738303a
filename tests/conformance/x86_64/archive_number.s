# A member is named by archive, number and name.
# INPUTS: first.o libx.a(third.o second.o)
# jitlink-check: section_addr(libx.a[1](second.o), .text) = callee

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
