# A member that is referenced is extracted from its archive.
# INPUTS: first.o libx.a(second.o)
# jitlink-check: *{8}pointer = callee
# jitlink-check: section_addr(libx.a[0](second.o), .text) = callee

#--- first.s
	.globl	main
	.type	main,@function
main:
	ret
	.size	main, .-main
	.data
	.globl	pointer
pointer:
	.quad	callee
	.size	pointer, .-pointer
#--- second.s
	.globl	callee
	.type	callee,@function
callee:
	ret
	.size	callee, .-callee
