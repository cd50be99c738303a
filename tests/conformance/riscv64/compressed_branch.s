# A short branch in two bytes.
	.option	norelax
	.globl	main
	.type	main,@function
main:
	.reloc	., R_RISCV_RVC_BRANCH, near
	.half	0xc101
	.size	main, .-main
	.section	.text.other,"ax"
	.globl	near
	.type	near,@function
near:
	ret
	.size	near, .-near

# jitlink-check: decode_operand(main, 1) = near - main
