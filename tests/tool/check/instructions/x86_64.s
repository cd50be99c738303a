# Forms of the instructions that commonly have relocations.
	callq f
	jmp f
	jmp *%rax
	call *%rax
	call *f(%rip)
	jmp *f(%rip)
	jne f
	jnp f
	jg f
	jmp .+4
	je .+4
	movq $5, %rax
	movq $-5, %rax
	movl $0xfffffff0, %eax
	movw $0x8001, %ax
	movb $0x81, %al
	movabsq $0x1122334455667788, %rcx
	movabsq 0x1122334455667788, %rax
	movabsq %rax, 0x1122334455667788
	movabsb 0x1122334455667788, %al
	movl $7, f(%rip)
	movq $-7, 8(%rsp)
	movb $-7, 8(%rsp,%rbx,4)
	movq f(%rip), %rax
	movq %rax, f(%rip)
	movl f(,%rax,8), %ebx
	movl %fs:0, %ebx
	movq %fs:0, %rbx
	leaq f(%rip), %rdi
	leaq 8(%rax,%rbx,2), %rdi
	addq $5, %rax
	addq $0x12345, %rax
	addl $0x12345, %eax
	addl $-1, %ecx
	addl $0x12345, %ecx
	addq f(%rip), %rcx
	addq %rcx, f(%rip)
	addq $8, f(%rip)
	addq %rax, %rcx
	cmpq $5, %rax
	cmpq $0x12345, %rax
	cmpq $0x12345, %rcx
	cmpl $0x12345, f(%rip)
	cmpq f(%rip), %rax
	cmpb $0x90, %al
	cmpb $0x90, %cl
	testq $0x12345, %rax
	testl $0x12345, %ecx
	testb $1, f(%rip)
	testq %rax, %rax
	pushq $5
	pushq $0x12345
	pushq %rax
	popq %rax
	pushq f(%rip)
	subq $24, %rsp
	andq $-16, %rsp
	xorl %eax, %eax
	orq $1, f(%rip)
	sbbl %eax, %eax
	adcq $0, %rdx
	incq %rax
	decl f(%rip)
	negq %rax
	notq f(%rip)
	shlq $3, %rax
	shlq $0x90, %rax
	shlq %rax
	sarl %ecx
	shrq %cl, %rax
	shll $4, f(%rip)
	shll f(%rip)
	shll %cl, f(%rip)
	imulq $100, %rax, %rbx
	imulq $10000, f(%rip), %rbx
	imulq f(%rip), %rbx
	imulq %rax, %rbx
	imulq %rbx
	mulq f(%rip)
	divq %rcx
	idivl f(%rip)
	cmoveq %rax, %rbx
	cmovgq f(%rip), %rbx
	sete %al
	setnp f(%rip)
	movzbl f(%rip), %eax
	movzwl %ax, %eax
	movslq f(%rip), %rax
	movsbl %al, %eax
	movslq %eax, %rbx
	movss f(%rip), %xmm0
	movsd f(%rip), %xmm1
	movsd %xmm1, f(%rip)
	movsd %xmm1, %xmm2
	movss %xmm1, %xmm2
	movaps f(%rip), %xmm0
	movups %xmm0, f(%rip)
	movdqa f(%rip), %xmm0
	movdqu %xmm1, %xmm0
	movq %rax, %xmm0
	movd %eax, %xmm0
	movq f(%rip), %xmm0
	addsd f(%rip), %xmm0
	mulsd %xmm1, %xmm0
	divss f(%rip), %xmm3
	xorps %xmm0, %xmm0
	andpd f(%rip), %xmm0
	pxor %xmm0, %xmm0
	paddd f(%rip), %xmm0
	ucomisd f(%rip), %xmm0
	cvttsd2si f(%rip), %rax
	cvttsd2si %xmm0, %rax
	pshufd $0x90, f(%rip), %xmm0
	shufps $0x90, %xmm1, %xmm0
	unpcklps %xmm1, %xmm0
	punpcklqdq f(%rip), %xmm0
	btq $5, %rax
	btq $0x90, f(%rip)
	btsq $5, %rax
	btl %eax, %ecx
	bswapq %rax
	ret
	ret $8
	leave
	cltq
	cltd
	cqto
	ud2
	int3
	syscall
	endbr64
	hlt
	nop
	nopw 0(%rax,%rax,1)
	lock addl $1, f(%rip)
	jmp *%r11
	rolq $3, %rcx
	subl $0x12345, %eax
	xorl $0x12345, %eax
	andl $0x12345, %eax
	orl $0x12345, %eax
	testb $0x90, %al
	sbbb $0x90, %al
	movq %rsp, %rbp
	movb %al, f(%rip)
	movw $5, f(%rip)
	cvtsi2sd %rax, %xmm0
	movhlps %xmm0,%xmm1
	addl $0x80000001, %ecx
	addl $0x80000001, %eax
	addw $0x8001, %cx
	cmpl $0x80000001, %ecx
	testl $0x80000001, %ecx
	testl $0x80000001, %eax
	orl $0x80000001, f(%rip)
	movl $0x80000001, f(%rip)
	movw $0x8001, f(%rip)
	movb $0x81, f(%rip)
	imull $0x80000001, %ecx, %ecx
	pushq $-0x12345
	subq $-0x12345, %rax
	subq $-0x12345, %rcx
	andb $0xf0, %cl
	btl $0x90, %ecx
	btsl $0x90, f(%rip)
	testw $0x8001, %cx
	movb $0x81, %cl
	retq $0x8001
	shldq $4, %rax, %rcx
