# A jump through the GOT becomes a direct one.
	.globl	main
	.type	main,@function
main:
	jmp	*callee@GOTPCREL(%rip)
	.size	main, .-main
	.globl	callee
	.type	callee,@function
callee:
	retq
	.size	callee, .-callee

# jitlink-check: *{1}main = 0xe9
# jitlink-check: *{1}(main + 5) = 0x90
