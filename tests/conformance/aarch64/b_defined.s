# A jump to another section.
	.globl	main
	.type	main,@function
main:
	b	callee
	.size	main, .-main
	.section	.text.other,"ax"
	.globl	callee
	.type	callee,@function
callee:
	ret
	.size	callee, .-callee

# jitlink-check: decode_operand(main, 0) = ((callee - main)>>2)[25:0]
