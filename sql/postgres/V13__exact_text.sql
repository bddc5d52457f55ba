-- An event's data is kept as the text that was appended, which is canonical JSON (RFC 8785): jsonb took it apart and wrote it again, by
-- other rules, at each reading. Rows of before stay as they are, since topics hold what was made of them.
ALTER TABLE events ADD COLUMN event_json json;
ALTER TABLE events ALTER COLUMN event_data DROP NOT NULL;
-- A process of an older build that still runs would find null here, and decide commands by it: it is to find no such column.
ALTER TABLE events RENAME COLUMN event_data TO event_jsonb;
-- Not looked for in the rows of before, which are under the old rule.
ALTER TABLE events ADD CONSTRAINT events_have_data CHECK (num_nonnulls(event_jsonb, event_json) = 1) NOT VALID;

-- For SQL: the data as jsonb, whichever way it is kept.
CREATE VIEW event_log AS
SELECT id, event_id, tenant, stream_id, version, event_type, schema_version, source,
       coalesce(event_jsonb, event_json::jsonb) AS event_data, metadata, timestamp, recorded_at, command_events, request_hash
FROM events;
GRANT SELECT ON event_log TO weir_reader;

-- The function is otherwise as it was.
DO $migration$
DECLARE
    before text := pg_get_functiondef('append_events'::regproc);
    after text := replace(replace(before, 'e.data::jsonb', 'e.data::json'), 'source, event_data,', 'source, event_json,');
BEGIN
    ASSERT before LIKE '%e.data::jsonb%' AND before LIKE '%source, event_data,%';
    EXECUTE after;
END
$migration$;
