# Compare and branch to another section.
	.globl	main
	.type	main,@function
main:
	cbz	x3, callee
	cbnz	w3, callee
	.size	main, .-main
	.section	.text.other,"ax"
	.globl	callee
	.type	callee,@function
callee:
	ret
	.size	callee, .-callee

# jitlink-check: decode_operand(main, 1) = (callee - main)[20:2]
# jitlink-check: decode_operand(main + 4, 1) = (callee - (main + 4))[20:2]
