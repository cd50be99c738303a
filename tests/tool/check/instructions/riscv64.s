# Forms of the instructions that commonly have relocations.
	.option norvc
	lui a0, 0xfffff
	lui a0, 0x12345
	auipc a0, 0x80000
	jal ra, .+2048
	jal zero, .-2048
	j .+4
	beq a0, a1, .+8
	bne a0, a1, .-8
	blt a0, a1, .+4094
	bge a0, a1, .-4096
	bltu a0, a1, .+8
	bgeu a0, a1, .+8
	lb a0, -1(a1)
	lh a0, 2(a1)
	lw a0, 2047(a1)
	ld a0, -2048(a1)
	lbu a0, 1(a1)
	lhu a0, 1(a1)
	lwu a0, 1(a1)
	flw fa0, 4(a1)
	fld fa0, 8(a1)
	sb a0, -1(a1)
	sh a0, 31(a1)
	sw a0, 32(a1)
	sd a0, -33(a1)
	fsw fa0, 4(a1)
	fsd fa0, 8(a1)
	addi a0, a1, -5
	mv a0, a1
	li a0, -7
	slti a0, a1, 4
	sltiu a0, a1, 4
	xori a0, a1, -1
	ori a0, a1, 5
	andi a0, a1, 5
	addiw a0, a1, -5
	jalr ra, 8(a0)
	jr a0
	ret
	slli a0, a1, 33
	srli a0, a1, 33
	srai a0, a1, 33
	slliw a0, a1, 3
	srliw a0, a1, 3
	sraiw a0, a1, 3
	add a0, a1, a2
	sub a0, a1, a2
	mul a0, a1, a2
	divw a0, a1, a2
	sraw a0, a1, a2
	ecall
	ebreak
	fence rw, w
	nop
	.option rvc
	c.nop
	c.addi a0, -3
	c.li a0, -3
	c.addi16sp sp, -32
	c.addi16sp sp, 496
	c.lui a0, 3
	c.lui a0, 0xfffe1
	c.srli a0, 33
	c.srai a0, 3
	c.andi a0, -5
	c.sub a0, a1
	c.xor a0, a1
	c.or a0, a1
	c.and a0, a1
	c.subw a0, a1
	c.addw a0, a1
	c.j .+1000
	c.j .-1000
	c.beqz a0, .+200
	c.bnez a0, .-200
	c.slli a0, 33
	c.fldsp fa0, 8(sp)
	c.lwsp a0, 8(sp)
	c.ldsp a0, 264(sp)
	c.jr a0
	c.jalr a0
	c.mv a0, a1
	c.add a0, a1
	c.ebreak
	c.fsdsp fa0, 8(sp)
	c.swsp a0, 8(sp)
	c.sdsp a0, 264(sp)
	c.addi4spn a0, sp, 1020
	c.fld fa0, 8(a1)
	c.lw a0, 124(a1)
	c.ld a0, 248(a1)
	c.fsd fa0, 8(a1)
	c.sw a0, 124(a1)
	c.sd a0, 8(a1)
	c.addiw a0, -3
