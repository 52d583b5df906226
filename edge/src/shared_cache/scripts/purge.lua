-- Stamps what a purge is about and tells all edges. ARGV: epoch, edge, 'h' or 's', when (milliseconds), digests, the purge for
-- the log, room for digests, prefixes ...
local c = control()
if not c or c.epoch ~= ARGV[1] then return 0 end
local seq = c.seq + 1
redis.call('HSET', CONTROL, 'seq', seq)
for i = 1, #ARGV[5], 16 do
  local facet = string.sub(ARGV[5], i, i + 15)
  local hard, soft, at = '0', '0', '0'
  local stamp = redis.call('HGET', YOUNG, facet)
  if stamp then hard, soft, at = string.match(stamp, '^(%d+) (%d+) (%d+)$') end
  if ARGV[3] == 'h' then hard = seq else soft, at = seq, ARGV[4] end
  redis.call('HSET', YOUNG, facet, hard .. ' ' .. soft .. ' ' .. at)
end
if redis.call('HLEN', YOUNG) > tonumber(ARGV[7]) / 2 then
  -- What began before the older half's last purge may be concerned by one that is forgotten now.
  redis.call('HSET', CONTROL, 'forgotten', redis.call('HGET', CONTROL, 'rotated'), 'rotated', seq)
  redis.call('UNLINK', OLD)
  redis.call('RENAME', YOUNG, OLD)
  redis.call('HSET', YOUNG, '', c.epoch)
end
if ARGV[8] then
  for i = 8, #ARGV do redis.call('ZADD', PREFIXES, seq, ARGV[i]) end
  redis.call('HSET', CONTROL, 'prefix', seq)
  local most = 256
  local over = redis.call('ZCARD', PREFIXES) - most
  if over > 0 then
    local cut = redis.call('ZPOPMIN', PREFIXES, over)
    redis.call('HSET', CONTROL, 'cut', cut[#cut])
  end
end
redis.call('XADD', LOG, 'MAXLEN', 1024, string.format('%d-0', seq), 'epoch', c.epoch, 'edge', ARGV[2], 'purge', ARGV[6])
return seq
