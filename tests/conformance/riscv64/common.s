# A common symbol is zero and aligned.
	.option	norelax
	.globl	main
	.type	main,@function
main:
	lla	a0, tentative
	.size	main, .-main
	.comm	tentative,16,16

# jitlink-check: tentative[3:0] = 0
# jitlink-check: *{8}tentative = 0
# jitlink-check: decode_operand(main, 1) = (tentative - main+0x800)[31:12]
