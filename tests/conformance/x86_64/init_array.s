# A pointer in an array of initialisers.
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
	.section	.init_array,"aw",@init_array
	.globl	list
list:
	.quad	main
	.data
	.globl	keep
keep:
	.quad	list

# jitlink-check: *{8}list = main
# jitlink-check: section_addr(init_array.o, .init_array) = list
