-- What happened (may be thinned out by month), and what must still be told to others (must not be lost).

CREATE SEQUENCE activity_logs_id_seq;

-- No foreign key to users: the log outlives them, and a batch insert should not lock their rows.
CREATE TABLE activity_logs (
    id        bigint NOT NULL DEFAULT nextval('activity_logs_id_seq'),
    timestamp timestamptz NOT NULL DEFAULT now(),
    user_id   bigint,
    action    text NOT NULL CHECK (length(action) BETWEEN 1 AND 64),
    subject   text,
    detail    jsonb,
    PRIMARY KEY (id, timestamp)
) PARTITION BY RANGE (timestamp);
ALTER SEQUENCE activity_logs_id_seq OWNED BY activity_logs.id;

-- The guide's activity_logs(user_id), continued by the order in which one user's log is read.
CREATE INDEX activity_logs_user_id_idx ON activity_logs (user_id, timestamp DESC, id DESC);
CREATE INDEX activity_logs_timestamp_idx ON activity_logs (timestamp DESC);

-- Catches what no month's partition takes, so that a missed maintenance run loses nothing.
CREATE TABLE activity_logs_default PARTITION OF activity_logs DEFAULT;

-- Makes the partition of the month (UTC) that holds `day`, and moves there what the default partition has caught of it.
-- Answers whether there was anything to do. Concurrent callers wait for each other.
CREATE FUNCTION create_activity_partition(day date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    first_day date := date_trunc('month', day)::date;
    partition text := 'activity_logs_' || to_char(day, 'YYYY_MM');
    lower_bound timestamptz := first_day::timestamp AT TIME ZONE 'UTC';
    upper_bound timestamptz := (first_day + interval '1 month')::timestamp AT TIME ZONE 'UTC';
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('create_activity_partition'));
    IF to_regclass(partition) IS NOT NULL THEN
        RETURN false;
    END IF;
    LOCK TABLE activity_logs_default IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('CREATE TABLE %I (LIKE activity_logs INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition);
    EXECUTE format(
        'WITH moved AS (DELETE FROM activity_logs_default WHERE timestamp >= $1 AND timestamp < $2 RETURNING *)
         INSERT INTO %I SELECT * FROM moved', partition) USING lower_bound, upper_bound;
    EXECUTE format('ALTER TABLE activity_logs ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                   partition, lower_bound, upper_bound);
    RETURN true;
END
$$;

SELECT create_activity_partition((now() AT TIME ZONE 'UTC')::date);
SELECT create_activity_partition(((now() AT TIME ZONE 'UTC') + interval '1 month')::date);

-- Messages written in the transaction of the change they announce; a worker takes them with FOR UPDATE SKIP LOCKED,
-- delivers each at least once to every receiver, and deletes the row when the last has it.
CREATE TABLE outbox (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic        text NOT NULL CHECK (length(topic) BETWEEN 1 AND 64),
    payload      jsonb NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    due_at       timestamptz NOT NULL DEFAULT now(),
    attempts     integer NOT NULL DEFAULT 0,
    delivered_to text[] NOT NULL DEFAULT '{}'
);
COMMENT ON COLUMN outbox.due_at IS 'Not before this time: moved into the future by back-off after a failed attempt.';
COMMENT ON COLUMN outbox.delivered_to IS 'Receivers that have acknowledged, so that a retry leaves them out.';
CREATE INDEX outbox_due_at_idx ON outbox (due_at, id);
