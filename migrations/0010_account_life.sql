-- What a customer can do with an account, and an administrator with the shop's books.

CREATE TABLE password_resets (
    token_hash bytea PRIMARY KEY CHECK (octet_length(token_hash) = 32),
    user_id    bigint NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);
COMMENT ON COLUMN password_resets.token_hash IS 'SHA-256 of the token in the mail: reading this table resets nothing.';
CREATE INDEX password_resets_user_id_idx ON password_resets (user_id);
CREATE INDEX password_resets_expires_at_idx ON password_resets (expires_at);

-- Written in the transaction of what they are about; a worker takes them with FOR UPDATE SKIP LOCKED and deletes what is sent.
CREATE TABLE mails (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    recipient  text NOT NULL,
    subject    text NOT NULL,
    body       text NOT NULL,
    attempts   integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    due_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX mails_due_at_idx ON mails (due_at);

-- Administrators list what is not offered as well.
CREATE INDEX products_all_newest_idx ON products (created_at, id);
