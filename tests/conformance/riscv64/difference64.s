# A difference of symbols is added and subtracted.
	.option	norelax
	.globl	main
	.type	main,@function
main:
	nop
	ret
	.size	main, .-main
	.globl	end
end:
	.data
	.globl	difference
difference:
	.quad	end - main
	.word	end - main
	.half	end - main
	.byte	end - main
	.size	difference, .-difference

# jitlink-check: *{8}difference = end - main
# jitlink-check: *{4}(difference + 8) = (end - main)[31:0]
# jitlink-check: *{2}(difference + 12) = (end - main)[15:0]
# jitlink-check: *{1}(difference + 14) = (end - main)[7:0]
