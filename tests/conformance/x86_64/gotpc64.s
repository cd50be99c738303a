# The distance of the GOT from here, in 64 bits.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	movabsq	$_GLOBAL_OFFSET_TABLE_-main, %rax
	movq	ext@GOTPCREL(%rip), %rcx
	.size	main, .-main

# jitlink-check: *{8}(main + 2) = _GLOBAL_OFFSET_TABLE_ - main
