# The address of a load includes the operators after it.
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
	.data
	.globl	bytes
bytes:
	.byte	1,2,3,4
	.quad	main
	.size	bytes, .-bytes

# jitlink-check: *{1}bytes + 2 = 3
# jitlink-check: (*{1}bytes) + 2 = 3
# jitlink-check: (*{4}bytes)[15:8] = 2
