-- What clients have spent at an edge, and what they owe by the count of all. ARGV: for each client the digest of it and its limit,
-- what it has spent and what it can spend at once, both as the microseconds in which they are earned.
-- Kept is when it will owe nothing, by the clock of this server. A step back of that clock costs a client no more than some times
-- what it can spend at once.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local owed = {}
for i = 1, #ARGV, 3 do
  local key = P .. ':l:' .. ARGV[i]
  local paid = tonumber(redis.call('GET', key) or 0) or 0
  if paid < now then paid = now end
  local debt = math.min(paid - now + tonumber(ARGV[i + 1]), 16 * tonumber(ARGV[i + 2]))
  redis.call('SET', key, string.format('%.2f', now + debt), 'PX', math.max(1, math.ceil(debt / 1000)))
  owed[#owed + 1] = string.format('%.0f', debt)
end
return owed
