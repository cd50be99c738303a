# Only the field is changed.
# OPTIONS: -abs ext=0x56
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
	.data
	.globl	around
around:
	.byte	1
	.byte	ext
	.byte	3
	.size	around, .-around

# jitlink-check: *{1}around = 1
# jitlink-check: *{1}(around + 1) = 0x56
# jitlink-check: *{1}(around + 2) = 3
