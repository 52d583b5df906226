-- Whoever remembers who has signed in is told when that ends: by the outbox, as of every other change, and whichever statement
-- ends it. What has run out by itself nobody remembers.
CREATE FUNCTION tell_of_ended_sessions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO outbox (topic, payload)
    SELECT 'sessions', jsonb_build_object('sessions', jsonb_agg(encode(token_hash, 'hex')))
      FROM ended
     WHERE expires_at > now()
    HAVING count(*) > 0;
    RETURN NULL;
END
$$;

CREATE TRIGGER sessions_tell_of_their_end AFTER DELETE ON sessions
    REFERENCING OLD TABLE AS ended
    FOR EACH STATEMENT EXECUTE FUNCTION tell_of_ended_sessions();
