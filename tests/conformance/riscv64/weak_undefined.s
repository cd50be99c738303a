# A weak reference that nobody defines is null.
	.option	norelax
	.globl	main
	.type	main,@function
main:
	ret
	.size	main, .-main
	.weak	nobody
	.data
	.globl	pointer
pointer:
	.quad	nobody
	.size	pointer, .-pointer

# jitlink-check: *{8}pointer = 0
