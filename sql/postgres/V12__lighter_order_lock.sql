-- A lock that excludes itself is all that the order needs. EXCLUSIVE is a mode for which Postgres looks through every backend's own locks each
-- time it is taken; SHARE UPDATE EXCLUSIVE is the strongest one for which it does not. The function is otherwise as it was.
DO $migration$
BEGIN
    EXECUTE replace(
        pg_get_functiondef('append_events'::regproc),
        'LOCK TABLE append_order IN EXCLUSIVE MODE',
        'LOCK TABLE append_order IN SHARE UPDATE EXCLUSIVE MODE'
    );
    ASSERT pg_get_functiondef('append_events'::regproc) LIKE '%IN SHARE UPDATE EXCLUSIVE MODE%';
END
$migration$;
