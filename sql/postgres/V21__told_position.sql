-- A reader that waits for events is told the newest position, and does not look for what it knows already. The function is otherwise as it was.
DO $migration$
BEGIN
    EXECUTE replace(
        pg_get_functiondef('append_events'::regproc),
        'pg_notify(''weir_events'', '''')',
        'pg_notify(''weir_events'', coalesce((SELECT max(e.id) FROM events e), 0)::text)'
    );
    ASSERT pg_get_functiondef('append_events'::regproc) LIKE '%pg_notify(''weir_events'', coalesce(%';
END
$migration$;
