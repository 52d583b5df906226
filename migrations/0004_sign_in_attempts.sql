-- How often somebody has tried to sign in. Unlogged: after a crash of the server everybody has all attempts again.

CREATE UNLOGGED TABLE sign_in_attempts (
    subject  bytea PRIMARY KEY CHECK (octet_length(subject) = 32),
    attempts integer NOT NULL,
    ends_at  timestamptz NOT NULL
);
COMMENT ON COLUMN sign_in_attempts.subject IS
    'SHA-256 of what is counted: an account, a client, or the pair of them. Neither can be read here.';
COMMENT ON COLUMN sign_in_attempts.ends_at IS 'The window''s end; then counting starts again.';
CREATE INDEX sign_in_attempts_ends_at_idx ON sign_in_attempts (ends_at);
