# A load from a misaligned offset is an error.
# STATUS: 1
	.globl	main
	.type	main,@function
main:
	adrp	x1, target+1
	ldr	x0, [x1, :lo12:target+1]
	.size	main, .-main
	.data
	.globl	target
target:
	.quad	1, 2, 3, 4
	.size	target, .-target

# jitlink-check: main = main
