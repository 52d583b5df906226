-- What an order in one statement keeps with its key, and what lets keys go again.

-- Of an order that was placed: the answer is the order itself, as it was placed. `fingerprint` says how `request_hash` was made;
-- 1 was of the program's own type, so another program's hash of the same request is another.
ALTER TABLE idempotency_keys
    ADD COLUMN order_id bigint REFERENCES orders (id) ON DELETE CASCADE,
    ADD COLUMN fingerprint smallint NOT NULL DEFAULT 1;
COMMENT ON COLUMN idempotency_keys.order_id IS 'In place of a body: the order that was placed with this key.';
CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at);
CREATE INDEX idempotency_keys_order_id_idx ON idempotency_keys (order_id) WHERE order_id IS NOT NULL;
