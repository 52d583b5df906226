-- Names that are nearly what somebody has typed, where the server has pg_trgm and lets this role load it. Elsewhere nothing is
-- like anything, and suggestions do without. (Installed later: CREATE EXTENSION pg_trgm, and the index and function below.)

DO $$
DECLARE
    loaded boolean;
BEGIN
    BEGIN
        IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm') THEN
            CREATE EXTENSION IF NOT EXISTS pg_trgm;
        END IF;
    EXCEPTION WHEN insufficient_privilege THEN
        RAISE NOTICE 'pg_trgm may not be loaded by %: suggestions will not forgive typing errors', current_user;
    END;
    SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm') INTO loaded;
    IF loaded THEN
        CREATE INDEX products_name_trgm_idx ON products USING gin (name gin_trgm_ops) WHERE active;
        -- The threshold is lower than pg_trgm's own 0.6: one wrong letter in six leaves about half of a word's trigrams.
        CREATE FUNCTION products_like(words text, most integer)
        RETURNS TABLE (id bigint, likeness real) LANGUAGE sql STABLE STRICT ROWS 100
        SET pg_trgm.word_similarity_threshold = 0.4 AS $f$
            SELECT p.id, word_similarity(words, p.name) FROM products p WHERE p.active AND words <% p.name LIMIT most
        $f$;
    ELSE
        CREATE FUNCTION products_like(words text, most integer)
        RETURNS TABLE (id bigint, likeness real) LANGUAGE sql STABLE STRICT ROWS 100 AS $f$
            SELECT NULL::bigint, NULL::real WHERE false
        $f$;
    END IF;
END
$$;
