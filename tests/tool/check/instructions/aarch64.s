# Forms of the instructions that commonly have relocations.
	b .+8
	bl .-8
	b.eq .+16
	b.al .+16
	cbz x0, .+8
	cbnz w0, .-8
	tbz x0, #45, .+8
	tbnz w3, #3, .-8
	br x3
	blr x4
	ret
	ret x5
	adr x0, .+13
	adr x0, .-13
	adrp x0, .+0x12000
	add x0, x1, #0x123
	add x0, x1, #0x123, lsl #12
	adds w0, w1, #3
	sub sp, sp, #16
	cmp x0, #5
	mov x0, sp
	movz x0, #0x1234, lsl #48
	movn w0, #0x1234, lsl #16
	mov x0, #-1
	movk x0, #0x1234, lsl #32
	movk w0, #0x1234, lsl #16
	ldr x0, .+16
	ldr w0, .-16
	ldrsw x0, .+16
	ldr q0, .+16
	ldr d0, .+16
	ldr s0, .+16
	prfm pldl1keep, .+16
	prfm pldl1keep, [x0, #16]
	strb w0, [x1, #3]
	ldrb w0, [x1, #3]
	ldrsb x0, [x1, #3]
	ldrsb w0, [x1, #3]
	strh w0, [x1, #6]
	ldrh w0, [x1, #6]
	ldrsh x0, [x1, #6]
	ldrsh w0, [x1, #6]
	str w0, [x1, #8]
	ldr w0, [x1, #8]
	ldrsw x0, [x1, #8]
	str x0, [x1, #8]
	ldr x0, [x1, #8]
	ldr b0, [x1, #8]
	ldr h0, [x1, #8]
	ldr s0, [x1, #8]
	ldr d0, [x1, #8]
	ldr q0, [x1, #16]
	str q0, [x1, #16]
	str d0, [x1, #16]
	ldur x0, [x1, #-8]
	stur w0, [x1, #-8]
	ldr x0, [x1], #-8
	str x0, [x1, #-8]!
	ldr q0, [x1], #16
	ldr x0, [x1, x2]
	ldr x0, [x1, x2, lsl #3]
	ldr x0, [x1, w2, uxtw #3]
	ldr x0, [x1, w2, sxtw]
	ldr w0, [x1, x2, sxtx #2]
	stp x29, x30, [sp, #-16]!
	ldp x29, x30, [sp], #16
	stp x0, x1, [sp, #16]
	ldp w0, w1, [sp, #-16]
	ldp q0, q1, [sp, #-16]
	stp d0, d1, [sp, #-16]!
	add x0, x1, x2
	add x0, x1, x2, lsl #3
	sub x0, x1, x2, asr #3
	adds w0, w1, w2, lsr #3
	add x0, x1, w2, sxtw #2
	mov x0, x1
	orr w0, w1, w2, ror #3
	and x0, x1, x2, asr #7
	ands x0, x1, #0xff
	and x0, x1, #0xf0f0f0f0f0f0f0f0
	eor w0, w1, #0xff00
	tst x0, #1
	lsl x0, x1, #3
	lsr w0, w1, #3
	sxtw x0, w1
	uxtb w0, w1
	csel x0, x1, x2, eq
	cset w0, ne
	csinv x0, x1, x2, lt
	cneg x0, x1, gt
	mul x0, x1, x2
	msub w0, w1, w2, w3
	nop
	bti c
	paciasp
	mrs x0, tpidr_el0
	svc #0
	brk #0x123
	hlt #3
	bic x0, x1, x2
	msr tpidr_el0, x3
