-- The event store: the system of record. Never trimmed, never updated.

CREATE TABLE event_store (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- Names this store in every ledger: positions mean something only together with it.
    id uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO event_store DEFAULT VALUES;

CREATE TABLE events (
    id bigint PRIMARY KEY,                  -- the position: 1, 2, 3 … in commit order
    event_id uuid NOT NULL UNIQUE,
    tenant text NOT NULL CHECK (length(tenant) BETWEEN 1 AND 255),
    stream_id varchar(300) NOT NULL,        -- AggregateType-aggregateId
    version bigint NOT NULL CHECK (version > 0),
    event_type varchar(255) NOT NULL,
    schema_version varchar(40) NOT NULL,
    source text NOT NULL,
    event_data jsonb NOT NULL,
    metadata jsonb NOT NULL,
    timestamp timestamptz(3) NOT NULL,      -- when it happened
    recorded_at timestamptz(3) NOT NULL,    -- when it was appended
    -- On the first event of each command: how many events it made, and what was asked, so that a repeat of the command
    -- gets the first answer and another body under the same key is found out.
    command_events integer,
    request_hash bytea,
    UNIQUE (tenant, stream_id, version)
);
CREATE INDEX idx_events_type ON events (tenant, event_type, id);
CREATE INDEX idx_events_timestamp ON events USING brin (timestamp);

CREATE TABLE snapshots (
    tenant text NOT NULL,
    stream_id varchar(300) NOT NULL,
    version bigint NOT NULL,
    state_version integer NOT NULL,         -- the layout of data; another layout is ignored and replaced
    data jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, stream_id)
);

-- Appends the commands of one group commit. c_* hold one element for each command, e_* one for each event, in order.
--   c_expected: -1 any, -2 stream exists, n = exactly version n (0: no stream yet).
--   e_command: index into c_*, from 1; e_ordinal: the event's number within its command, from 1.
-- A batch holds several commands of one stream only when all of them expect "any".
--
-- Position order is commit order, because one advisory lock is held from before the first read until the transaction has
-- committed. The lock is a statement of its own: READ COMMITTED gives each statement of a volatile function a snapshot of
-- its own, so everything after it sees what the previous holder committed. A caller must not wrap this in a longer
-- transaction with an older snapshot.
CREATE FUNCTION append_events(
    c_tenant text[], c_stream text[], c_expected bigint[], c_first_event uuid[], c_request_hash bytea[], c_events integer[],
    e_command integer[], e_ordinal integer[], e_event_id uuid[], e_type text[], e_schema_version text[], e_source text[], e_data text[],
    e_metadata text[], e_timestamp timestamptz[]
) RETURNS TABLE (
    command integer,        -- index into c_*, from 1
    outcome text,           -- appended, repeated, key_reused or conflict
    version bigint,         -- of the stream: after the command, or as it stands for a conflict
    first_position bigint,
    last_position bigint,
    recorded timestamptz
) LANGUAGE plpgsql VOLATILE
  SET enable_seqscan = off
AS $$
DECLARE
    head bigint;
    now_ms timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(8626, 1);
    head := coalesce((SELECT max(e.id) FROM events e), 0);
    now_ms := date_trunc('milliseconds', clock_timestamp());
    RETURN QUERY
    WITH c AS MATERIALIZED (
        SELECT u.i::integer AS i, u.tenant, u.stream, u.expected, u.first_event, u.request_hash, u.n,
               known.id AS known_id, known.version AS known_version, known.command_events AS known_events,
               known.recorded_at AS known_recorded, known.request_hash AS known_hash,
               coalesce(latest.version, 0) AS actual
        FROM unnest(c_tenant, c_stream, c_expected, c_first_event, c_request_hash, c_events)
             WITH ORDINALITY AS u(tenant, stream, expected, first_event, request_hash, n, i)
        LEFT JOIN LATERAL (
            SELECT e.id, e.version, e.command_events, e.recorded_at, e.request_hash
            FROM events e WHERE e.event_id = u.first_event
        ) known ON true
        LEFT JOIN LATERAL (
            SELECT e.version FROM events e WHERE e.tenant = u.tenant AND e.stream_id = u.stream
            ORDER BY e.version DESC LIMIT 1
        ) latest ON true
    ), judged AS MATERIALIZED (
        -- The command id comes before the version: a repeat must not look like a conflict with itself.
        SELECT c.*, CASE
            WHEN c.known_id IS NOT NULL AND c.known_hash IS NOT DISTINCT FROM c.request_hash THEN 'repeated'
            WHEN c.known_id IS NOT NULL THEN 'key_reused'
            WHEN c.expected = -1 OR (c.expected = -2 AND c.actual > 0) OR c.expected = c.actual THEN 'appended'
            ELSE 'conflict' END AS verdict
        FROM c
    ), placed AS MATERIALIZED (
        SELECT j.i, j.tenant, j.stream, j.n, j.request_hash,
               j.actual + sum(j.n) OVER (PARTITION BY j.tenant, j.stream ORDER BY j.i) - j.n AS before_version,
               head + sum(j.n) OVER (ORDER BY j.i) - j.n AS before_position
        FROM judged j WHERE j.verdict = 'appended'
    ), inserted AS (
        INSERT INTO events (id, event_id, tenant, stream_id, version, event_type, schema_version, source, event_data,
                            metadata, timestamp, recorded_at, command_events, request_hash)
        SELECT p.before_position + e.ordinal, e.event_id, p.tenant, p.stream, p.before_version + e.ordinal, e.type,
               e.schema_version, e.source, e.data::jsonb, e.metadata::jsonb, e.at, now_ms,
               CASE WHEN e.ordinal = 1 THEN p.n END, CASE WHEN e.ordinal = 1 THEN p.request_hash END
        FROM unnest(e_command, e_ordinal, e_event_id, e_type, e_schema_version, e_source, e_data, e_metadata, e_timestamp)
             AS e(command, ordinal, event_id, type, schema_version, source, data, metadata, at)
        JOIN placed p ON p.i = e.command
    )
    SELECT j.i, j.verdict,
           CASE j.verdict WHEN 'appended' THEN (p.before_version + p.n)::bigint
                          WHEN 'repeated' THEN j.known_version + j.known_events - 1
                          ELSE j.actual END,
           CASE j.verdict WHEN 'appended' THEN (p.before_position + 1)::bigint WHEN 'repeated' THEN j.known_id END,
           CASE j.verdict WHEN 'appended' THEN (p.before_position + p.n)::bigint
                          WHEN 'repeated' THEN j.known_id + j.known_events - 1 END,
           CASE j.verdict WHEN 'appended' THEN now_ms WHEN 'repeated' THEN j.known_recorded END
    FROM judged j LEFT JOIN placed p USING (i)
    ORDER BY j.i;
    PERFORM pg_notify('weir_events', '');
END $$;
