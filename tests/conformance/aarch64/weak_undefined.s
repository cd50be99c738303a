# An undefined weak symbol is null.
	.globl	main
	.type	main,@function
main:
	ret
	.size	main, .-main
	.weak	undefined
	.data
	.globl	pointer
pointer:
	.quad	undefined
	.size	pointer, .-pointer

# jitlink-check: *{8}pointer = 0
