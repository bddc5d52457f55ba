-- Tables that workflows compute out of the read models. What a workflow reads, it reads as weir_workflows, in a transaction that writes nothing.
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

-- It reads what readers may read, and is no member of theirs: the server lets members of weir_reader in from other processes, and the owner is a
-- member of this one. The embedded server makes and grants it where its roles are made; elsewhere that may be an administrator's to do.
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'weir_workflows') THEN
        CREATE ROLE weir_workflows NOLOGIN;
    END IF;
    EXECUTE format('GRANT weir_workflows TO %I', current_user);
EXCEPTION WHEN insufficient_privilege THEN NULL;
END $$;
