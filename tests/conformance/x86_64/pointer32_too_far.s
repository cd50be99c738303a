# A pointer of 32 bits to an address above them is an error.
# SLAB: 0x7f0000000000
# STATUS: 1
	.globl	main
	.type	main,@function
main:
	movl	$target, %edi
	.size	main, .-main
	.data
	.globl	target
target:
	.quad	1
	.size	target, .-target

# jitlink-check: main = main
