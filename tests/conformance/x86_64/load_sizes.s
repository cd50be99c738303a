# Loads of one to eight bytes.
	.globl	main
	.type	main,@function
main:
	retq
	.size	main, .-main
	.data
	.globl	bytes
bytes:
	.quad	0x1122334455667788
	.quad	main
	.size	bytes, .-bytes

# jitlink-check: *{1}bytes = 0x88
# jitlink-check: *{2}bytes = 0x7788
# jitlink-check: *{4}bytes = 0x55667788
# jitlink-check: *{8}bytes = 0x1122334455667788
# jitlink-check: *{2}(bytes + 3) = 0x4455
