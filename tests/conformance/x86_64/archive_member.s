# A member that is referenced is extracted from its archive.
# INPUTS: first.o libx.a(second.o)
# jitlink-check: decode_operand(main, 0) = callee - next_pc(main)

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
