# The distance of a function from the GOT, in 64 bits.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	movabsq	$callee@GOTOFF, %rax
	movq	ext@GOTPCREL(%rip), %rcx
	.size	main, .-main
	.globl	callee
	.type	callee,@function
callee:
	retq
	.size	callee, .-callee

# jitlink-check: *{8}(main + 2) = callee - section_addr(gotoff64.o, $__GOT)
