local function producer(n)
  return coroutine.create(function()
    for i = 1, n do coroutine.yield(i) end
    return "done"
  end)
end
local sum, co = 0, producer(100)
while coroutine.status(co) ~= "dead" do
  local ok, value = coroutine.resume(co)
  if type(value) == "number" then sum = sum + value end
end
print(sum, arg[0] ~= nil, arg[1])
print(pcall(error, { code = 7 }) == false, select(2, pcall(error, "text", 0)))
local failing = coroutine.wrap(function() coroutine.yield(1) error("inside a coroutine", 0) end)
print(failing(), pcall(failing))
print(select(2, xpcall(function() local x = nil; return x.y end, function(m) return #m > 0 end)))
do
  local closed = setmetatable({}, { __close = function(_, e) print("closed", e) end })
  print(pcall(function() local guard <close> = closed; error("unwound", 0) end))
end
local words = {}
for word in ("the quick brown fox"):gmatch("%a+") do words[#words + 1] = word end
table.sort(words)
print(table.concat(words, " "), string.format("%.4f %x", math.sqrt(2), 255), utf8.char(228, 8364))
collectgarbage()
local function deep(n) if n == 0 then error("the end") end return (deep(n - 1)) end
deep(3)
