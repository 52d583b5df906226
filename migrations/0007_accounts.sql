-- One account for an address however it is spelled, and attempts that are judged before they are counted.

-- The one rule by which two spellings are the same address. Whatever looks for an account or counts against one asks it here:
-- another program's idea of lower case (U+0130 in Rust and in libc) would be another counter for the same account.
CREATE FUNCTION normal_email(address text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT lower(normalize(address, NFKC))
$$;

-- Generated, so that the program before this one still registers customers. Its own index (users_email_idx) stays for it.
ALTER TABLE users ADD COLUMN email_normal text GENERATED ALWAYS AS (normal_email(email)) STORED;
CREATE UNIQUE INDEX users_email_normal_idx ON users (email_normal);

ALTER TABLE sign_in_attempts ADD COLUMN known_until timestamptz;
COMMENT ON COLUMN sign_in_attempts.known_until IS
    'Of a pair: until then the account''s limit is not for this client, which has signed in to it.';

-- Counts an attempt of each subject that is not null, and answers 0; or, when one of them has had its share, counts nothing,
-- writes nothing, and answers the seconds until there is a new one. `pair` is judged by `most_of_pair`, the others by `most`.
-- Attempts at the same moment wait for each other, always in the order pair, client, account.
CREATE FUNCTION count_attempt(pair bytea, client bytea, account bytea, most_of_pair integer, most integer)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    subjects bytea[] := ARRAY[pair, client, account];
    limits integer[] := ARRAY[most_of_pair, most, most];
    wait bigint;
BEGIN
    IF EXISTS (SELECT FROM sign_in_attempts a WHERE a.subject = pair AND a.known_until > now()) THEN
        -- However many strangers guess, they do not lock out the owner where the owner has been before.
        subjects[3] := NULL;
    END IF;
    SELECT ceil(extract(epoch FROM max(a.ends_at) - now())) INTO wait
      FROM UNNEST(subjects, limits) AS judged (subject, limit_of_it)
      JOIN sign_in_attempts a ON a.subject = judged.subject
     WHERE a.ends_at > now() AND a.attempts >= judged.limit_of_it;
    IF wait IS NOT NULL THEN
        RETURN greatest(wait, 1);
    END IF;
    FOR number IN 1 .. 3 LOOP
        CONTINUE WHEN subjects[number] IS NULL;
        INSERT INTO sign_in_attempts AS known (subject, attempts, ends_at)
        VALUES (subjects[number], 1, now() + interval '15 minutes')
        ON CONFLICT (subject) DO UPDATE
           SET attempts = CASE WHEN known.ends_at > now() THEN known.attempts + 1 ELSE 1 END,
               ends_at = CASE WHEN known.ends_at > now() THEN known.ends_at ELSE excluded.ends_at END
         WHERE known.ends_at <= now() OR known.attempts < limits[number];
        IF NOT FOUND THEN
            -- Others have used it up since it was judged above.
            RAISE EXCEPTION USING ERRCODE = 'GH001';
        END IF;
    END LOOP;
    RETURN 0;
EXCEPTION WHEN SQLSTATE 'GH001' THEN
    -- What was charged before goes back with the block. Soon enough: the next attempt is told by the judgement above.
    RETURN 1;
END
$$;
