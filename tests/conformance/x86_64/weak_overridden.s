# A strong definition in another file overrides a weak one.
# jitlink-check: *{8}chosen = 2
# jitlink-check: *{8}pointer = chosen

#--- first.s
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
	.weak	chosen
	.data
chosen:
	.quad	1
	.globl	pointer
pointer:
	.quad	chosen
#--- second.s
	.data
	.globl	chosen
chosen:
	.quad	2
	.globl	second
second:
	.quad	chosen
