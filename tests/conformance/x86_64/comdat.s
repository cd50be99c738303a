# Of two groups of one name the first is kept.
# jitlink-check: decode_operand(inline, 1) = 1
# jitlink-check: *{4}(main + 1) = (inline - next_pc(main))[31:0]
# jitlink-check: *{4}(second + 1) = (inline - next_pc(second))[31:0]

#--- first.s
	.globl	main
	.type	main,@function
main:
	callq	inline
	callq	second
	.size	main, .-main
	.section	.text.inline,"axG",@progbits,inline,comdat
	.weak	inline
	.type	inline,@function
inline:
	movl	$1, %eax
	.size	inline, .-inline
#--- second.s
	.globl	second
	.type	second,@function
second:
	callq	inline
	.size	second, .-second
	.section	.text.inline,"axG",@progbits,inline,comdat
	.weak	inline
	.type	inline,@function
inline:
	movl	$2, %eax
	.size	inline, .-inline
