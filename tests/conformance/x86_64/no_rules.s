# A file without rules fails.
# STATUS: 1
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
