-- Months of the activity log go as a whole: dropping a partition costs nothing, deleting its rows would cost everything.

-- Drops the partitions of the months (UTC) before the one that holds `day`, and what the default partition has from before.
-- Answers how many partitions went.
CREATE FUNCTION drop_activity_partitions(day date) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    first_kept text := 'activity_logs_' || to_char(day, 'YYYY_MM');
    partition text;
    dropped integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('create_activity_partition'));
    FOR partition IN
        SELECT c.relname
          FROM pg_inherits i
          JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'activity_logs'::regclass
           AND c.relname ~ '^activity_logs_[0-9]{4}_[0-9]{2}$'
           AND c.relname COLLATE "C" < first_kept
    LOOP
        EXECUTE format('DROP TABLE %I', partition);
        dropped := dropped + 1;
    END LOOP;
    DELETE FROM activity_logs_default WHERE timestamp < date_trunc('month', day)::timestamp AT TIME ZONE 'UTC';
    RETURN dropped;
END
$$;
