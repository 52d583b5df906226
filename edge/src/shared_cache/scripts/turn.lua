-- Whose turn it is to have a certificate made. ARGV: the name, the edge, for how many milliseconds it would have it; 0 ends it.
local turn = P .. ':o:' .. ARGV[1]
local has = redis.call('GET', turn)
if has and has ~= ARGV[2] then return 0 end
if ARGV[3] == '0' then redis.call('DEL', turn) else redis.call('SET', turn, ARGV[2], 'PX', ARGV[3]) end
return 1
