# An undefined weak symbol is null.
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
	.weak	undefined
	.data
	.globl	pointer
pointer:
	.quad	undefined
	.quad	main
	.size	pointer, .-pointer

# jitlink-check: *{8}pointer = 0
# jitlink-check: *{8}(pointer + 8) = main
