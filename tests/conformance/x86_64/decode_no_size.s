# A symbol without a size cannot be decoded.
# STATUS: 1
	.globl	main
main:
	retq

# jitlink-check: next_pc(main) = main+1
