# The size of a symbol.
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
	.data
	.globl	sizes
sizes:
	.long	target@SIZE
	.long	target@SIZE+1
	.size	sizes, .-sizes
	.data
	.globl	target
target:
	.zero	24
	.size	target, .-target

# jitlink-check: *{4}sizes = 24
# jitlink-check: *{4}(sizes + 4) = 25
