# A local symbol is not known.
# STATUS: 1
	.globl	main
	.type	main,@function
main:
	leaq	secret(%rip), %rax
	.size	main, .-main
	.data
secret:
	.quad	1

# jitlink-check: secret = secret
