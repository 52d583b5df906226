-- Begins an epoch where there is none on this server, or where it has lost purges that the edge has heard.
-- ARGV: the server's run id, a name for the epoch to be, the epoch that the edge knows, how far it has heard in that.
local c = control()
local lost = c and c.epoch == ARGV[3] and c.seq < tonumber(ARGV[4])
if not c or lost or redis.call('HGET', CONTROL, 'run') ~= ARGV[1] then
  redis.call('UNLINK', CONTROL, YOUNG, OLD, PREFIXES, EDGES, LOG)
  redis.call('HSET', CONTROL, 'epoch', ARGV[2], 'run', ARGV[1], 'seq', 0, 'forgotten', 0, 'rotated', 0, 'prefix', 0, 'cut', 0)
  for _, kept in ipairs({ YOUNG, OLD, EDGES }) do redis.call('HSET', kept, '', ARGV[2]) end
  return { ARGV[2], 0 }
end
return { c.epoch, c.seq }
