# The offset of a GOT entry in the GOT.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	movabsq	$ext@GOT, %rax
	.size	main, .-main

# jitlink-check: *{8}(main + 2) = got_addr(got64.o, ext) - section_addr(got64.o, $__GOT)
