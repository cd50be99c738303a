# The distance to a GOT entry in data.
# OPTIONS: -abs ext=0x7fff00001000
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
	.data
	.globl	distance
distance:
	.long	ext@GOTPCREL
	.size	distance, .-distance
	.section	.text
	.globl	use
use:
	.quad	distance

# jitlink-check: *{4}distance = (got_addr(got_pcrel_data.o, ext) - distance)[31:0]
