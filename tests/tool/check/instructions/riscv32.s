# Forms of the instructions that commonly have relocations.
	c.jal .+1000
	c.flw fa0, 4(a1)
	c.fsw fa0, 64(a1)
	c.flwsp fa0, 64(sp)
	c.fswsp fa0, 128(sp)
	c.j .+8
	slli a0,a1,31
	lui a0,1
	c.lwsp a0, 8(sp)
	c.lw a0, 8(a1)
