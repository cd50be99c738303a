# A call to another file.
# jitlink-check: decode_operand(main, 0) = callee - next_pc(main)
# jitlink-check: section_addr(first.o, .text) = main
# jitlink-check: section_addr(second.o, .text) = callee

#--- first.s
	.globl	main
	.type	main,@function
main:
	callq	callee
	.size	main, .-main
#--- second.s
	.globl	callee
	.type	callee,@function
callee:
	retq
	.size	callee, .-callee
