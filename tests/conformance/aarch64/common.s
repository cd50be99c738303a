# A common symbol is zero and aligned.
	.globl	main
	.type	main,@function
main:
	adrp	x0, tentative
	nop
	add	x0, x0, :lo12:tentative
	.size	main, .-main
	.comm	tentative,16,16

# jitlink-check: tentative[3:0] = 0
# jitlink-check: *{8}tentative = 0
# jitlink-check: decode_operand(main + 8, 2) = tentative[11:0]
