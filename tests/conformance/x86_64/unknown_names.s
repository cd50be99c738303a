# Files, sections, GOT entries, stubs and symbols that do not exist.
# STATUS: 1
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main

# jitlink-check: undefined = 1
# jitlink-check: section_addr(other.o, .text) = 1
# jitlink-check: section_addr(unknown_names.o, .other) = 1
# jitlink-check: got_addr(unknown_names.o, main) = 1
# jitlink-check: stub_addr(unknown_names.o, main) = 1
# jitlink-check: next_pc(undefined) = 1
# jitlink-check: decode_operand(undefined, 0) = 1
