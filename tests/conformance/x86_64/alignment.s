# Sections keep their alignment.
	.globl	main
	.type	main,@function
main:
	leaq	aligned(%rip), %rax
	.size	main, .-main
	.section	.rodata.aligned,"a"
	.p2align	8
	.globl	aligned
aligned:
	.quad	5

# jitlink-check: aligned[7:0] = 0
# jitlink-check: *{8}aligned = 5
