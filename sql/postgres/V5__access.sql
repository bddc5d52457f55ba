CREATE TABLE api_tokens (
    id text PRIMARY KEY,
    tenant text NOT NULL,
    name text NOT NULL,
    scopes text[] NOT NULL CHECK (scopes <@ ARRAY['command', 'read', 'admin']),
    secret_hash bytea NOT NULL,     -- SHA-256 of 256 random bits; the secret itself is shown once and kept nowhere
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);

-- For dashboards and people: may read what is derived, not the tokens.
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'weir_reader') THEN
        CREATE ROLE weir_reader NOLOGIN;
    END IF;
END $$;
GRANT USAGE ON SCHEMA public TO weir_reader;
GRANT SELECT ON event_store, events, snapshots, ledger, dead_letters, user_read_model, learning_session_read_model,
    assessment_read_model, learner_progress_read_model, learner_learning_paths, metric_counters,
    metric_histogram_buckets TO weir_reader;
