-- Who appends holds this table, so that positions are given in the order of commits. An advisory lock did it before, which anybody with
-- a connection may take; to lock a table one has to be allowed to write it.
CREATE TABLE append_order ();
REVOKE ALL ON append_order FROM PUBLIC;

CREATE OR REPLACE FUNCTION append_events(
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
    LOCK TABLE append_order IN EXCLUSIVE MODE;
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
