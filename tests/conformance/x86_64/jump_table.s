# A table of distances to local labels.
	.globl	main
	.type	main,@function
main:
	leaq	table(%rip), %rdx
	retq
	nop
	nop
	.size	main, .-main
	.section	.rodata,"a"
	.globl	table
table:
	.long	main - table
	.long	callee - table
	.size	table, .-table
	.section	.text
	.globl	callee
	.type	callee,@function
callee:
	retq
	.size	callee, .-callee

# jitlink-check: *{4}table = (main - table)[31:0]
# jitlink-check: *{4}(table + 4) = (callee - table)[31:0]
