# Spaces may follow every token but a number.
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
	.data
	.globl	x
x:
	.quad	main
	.size	x, .-x

# jitlink-check: ( main + 1) = main+1
# jitlink-check: * { 8} x = main
# jitlink-check: main [ 3:0] = 0
