# Data of each file points into the other.
# jitlink-check: *{8}first = second
# jitlink-check: *{8}second = first
# jitlink-check: *{8}(second + 8) = main

#--- first.s
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
	.data
	.globl	first
first:
	.quad	second
	.size	first, .-first
#--- second.s
	.data
	.globl	second
second:
	.quad	first
	.quad	main
	.size	second, .-second
