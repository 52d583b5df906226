-- Forgets a resource in all its variants. ARGV: the resource's digest.
local resource = P .. ':r:' .. ARGV[1]
local all = redis.call('HGETALL', resource)
for i = 1, #all, 2 do
  if string.sub(all[i], -1) == 'x' then unlink_body(all[i + 1]) end
end
return redis.call('UNLINK', resource)
