# A symbol that the command defines.
# OPTIONS: -abs ext=4660
	.globl	main
	.type	main,@function
main:
	ret
	.size	main, .-main
	.data
	.globl	pointer
pointer:
	.quad	ext
	.size	pointer, .-pointer

# jitlink-check: ext = 4660
# jitlink-check: *{8}pointer = ext
