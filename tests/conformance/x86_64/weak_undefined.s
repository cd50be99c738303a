# A weak reference that nobody defines is null.
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
	.weak	nobody
	.data
	.globl	pointer
pointer:
	.quad	nobody
	.quad	main
	.size	pointer, .-pointer

# jitlink-check: *{8}pointer = 0
# jitlink-check: *{8}(pointer + 8) = main
