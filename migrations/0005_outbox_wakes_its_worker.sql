-- A wake-up for the workers, sent when the transaction commits. Only a hint: who misses it finds the row by polling.

CREATE FUNCTION wake_outbox_workers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('outbox', '');
    RETURN NULL;
END
$$;

CREATE TRIGGER outbox_wakes_its_worker AFTER INSERT ON outbox
    FOR EACH STATEMENT EXECUTE FUNCTION wake_outbox_workers();
