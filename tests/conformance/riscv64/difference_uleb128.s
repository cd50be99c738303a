# A difference of symbols in LEB128.
	.option	relax
	.globl	main
	.type	main,@function
main:
	nop
	call	callee
	ret
	.size	main, .-main
	.globl	end
end:
	.globl	callee
	.type	callee,@function
callee:
	ret
	.size	callee, .-callee
	.data
	.globl	difference
difference:
	.uleb128	end - main
	.byte	5
	.size	difference, .-difference

# jitlink-check: *{1}difference = end - main
# jitlink-check: *{1}(difference + 1) = 5
