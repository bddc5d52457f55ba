-- Tables that workflows compute out of the read models. What a workflow reads, it reads as weir_reader, in a transaction that writes nothing.
CREATE SCHEMA workflows;
GRANT USAGE ON SCHEMA workflows TO weir_reader;

-- How far each workflow's table goes.
CREATE TABLE workflow_state (
    name text PRIMARY KEY,
    fingerprint text NOT NULL,              -- of its file: another one computes everything again
    read_to jsonb NOT NULL,                 -- the ledger offsets of the lane read-models that its rows are of
    windows bigint NOT NULL,                -- computed by the last run; 0 where the whole table was
    rows bigint NOT NULL,                   -- written by it
    computed_at timestamptz NOT NULL,
    took interval NOT NULL
);
GRANT SELECT ON workflow_state TO weir_reader;

-- The owner becomes a reader for that. The embedded server grants it where its roles are made; elsewhere it may be an administrator's to do.
DO $$ BEGIN
    EXECUTE format('GRANT weir_reader TO %I', current_user);
EXCEPTION WHEN insufficient_privilege THEN NULL;
END $$;
