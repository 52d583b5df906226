-- What purges rest on. KEYS[1] is what all keys begin with.
--
--   :control  hash    epoch, run, seq, forgotten, rotated, prefix, cut
--   :young, :old  hashes  the newest purges of each thing, by its digest: "HARD SOFT SOFT_AT"; and '' the epoch
--   :prefixes zset    prefixes by the number of their newest purge
--   :edges    hash    each edge: "TURN HEARD"; and '' the epoch
--   :log      stream  the latest purges, by number
--
-- None of these expires, so a policy of eviction that begins with "volatile" leaves them. Where one is gone all the same, or
-- the server is another, `control` says so, and a new epoch begins: nothing that was written before counts.
local P = KEYS[1]
local CONTROL, YOUNG, OLD = P .. ':control', P .. ':young', P .. ':old'
local PREFIXES, EDGES, LOG = P .. ':prefixes', P .. ':edges', P .. ':log'

local function control()
  local c = redis.call('HMGET', CONTROL, 'epoch', 'seq', 'forgotten', 'prefix', 'cut')
  local epoch = c[1]
  if not epoch then return nil end
  for _, kept in ipairs({ YOUNG, OLD, EDGES }) do
    if redis.call('HGET', kept, '') ~= epoch then return nil end
  end
  local prefix = tonumber(c[4])
  if prefix > 0 and redis.call('EXISTS', PREFIXES) == 0 then return nil end
  return { epoch = epoch, seq = tonumber(c[2]), forgotten = tonumber(c[3]), prefix = prefix, cut = tonumber(c[5]) }
end

-- The newest purges since `began` of what these digests (16 octets each) stand for: hard, soft, and when the soft one was.
local function newest(c, facets, key, began)
  local hard, soft, at = math.max(c.forgotten, c.cut), 0, '0'
  if c.seq <= began then return 0, 0, at end
  local fields = {}
  for i = 1, #facets, 16 do fields[#fields + 1] = string.sub(facets, i, i + 15) end
  for _, half in ipairs({ YOUNG, OLD }) do
    for _, stamp in ipairs(redis.call('HMGET', half, unpack(fields))) do
      if stamp then
        local h, s, when = string.match(stamp, '^(%d+) (%d+) (%d+)$')
        hard = math.max(hard, tonumber(h))
        if tonumber(s) > soft then soft, at = tonumber(s), when end
      end
    end
  end
  if c.prefix > began then
    for _, prefix in ipairs(redis.call('ZRANGEBYSCORE', PREFIXES, '(' .. string.format('%d', began), '+inf')) do
      if string.sub(key, 1, #prefix) == prefix then hard = c.seq end
    end
  end
  return hard, soft, at
end

-- Takes a stored response's octets away that lie beside it. `place` is "ID COUNT LENGTH CHECKSUM".
local function unlink_body(place)
  local id, count = string.match(place or '', '^(%x+) (%d+) ')
  for n = 0, (tonumber(count) or 0) - 1 do redis.call('UNLINK', P .. ':b:' .. id .. ':' .. n) end
end
