-- Forgets an edge that has gone, or whose lease has run out: unless it has said something since. ARGV: epoch, edge, what it
-- said last ('' for whatever).
local c = control()
if not c or c.epoch ~= ARGV[1] then return 0 end
if ARGV[3] == '' or redis.call('HGET', EDGES, ARGV[2]) == ARGV[3] then return redis.call('HDEL', EDGES, ARGV[2]) end
return 0
