# The operands of compressed instructions.
	.option	norelax
	.globl	main
	.type	main,@function
main:
	c.addi	a0, -3
	c.li	a1, 5
	c.lui	a2, 0xfffe1
	c.ldsp	a3, 264(sp)
	.size	main, .-main

# jitlink-check: decode_operand(main, 2) = 0-3
# jitlink-check: decode_operand(main + 2, 1) = 5
# jitlink-check: decode_operand(main + 4, 1) = 0xfffe1
# jitlink-check: decode_operand(main + 6, 2) = 264
