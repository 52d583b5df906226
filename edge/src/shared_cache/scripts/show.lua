-- What certificate authorities are shown at all edges. ARGV: a name, its proof in a line ('' for none), for how many milliseconds.
local PROOFS = P .. ':proofs'
if ARGV[2] == '' then return redis.call('HDEL', PROOFS, ARGV[1]) end
redis.call('HSET', PROOFS, ARGV[1], ARGV[2])
return redis.call('PEXPIRE', PROOFS, ARGV[3])
