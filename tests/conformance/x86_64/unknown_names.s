# Files, sections, entries and symbols that are not there.
# STATUS: 1
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main

# jitlink-check: nobody = 1
# jitlink-check: section_addr(other.o, .text) = 1
# jitlink-check: section_addr(unknown_names.o, .other) = 1
# jitlink-check: got_addr(unknown_names.o, main) = 1
# jitlink-check: stub_addr(unknown_names.o, main) = 1
# jitlink-check: next_pc(nobody) = 1
# jitlink-check: decode_operand(nobody, 0) = 1
