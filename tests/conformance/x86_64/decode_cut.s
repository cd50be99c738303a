# An instruction must end within its symbol.
# STATUS: 1
	.globl	main
main:
	callq	callee
	.size	main, 3
	.globl	callee
	.type	callee,@function
callee:
	retq
	.size	callee, .-callee

# jitlink-check: next_pc(main) = main+5
