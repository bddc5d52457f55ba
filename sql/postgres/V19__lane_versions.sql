-- Versions of what a lane keeps in Postgres: which one serves, what made it, and the one before until it is dropped.
CREATE TABLE lane_versions (
    lane text PRIMARY KEY,
    version integer NOT NULL DEFAULT 1,         -- raised by each rebuild that took the place of what served
    fingerprint text NOT NULL,                  -- of the projection that makes its rows; a lane with another one waits
    built_at timestamptz NOT NULL DEFAULT now(),
    previous_version integer,                   -- kept in the schema weir_previous_LANE
    previous_fingerprint text,
    previous_stand jsonb,                       -- ledger offsets and dead letters that its rows are of
    previous_at timestamptz                     -- when it stopped serving
);
GRANT SELECT ON lane_versions TO weir_reader;
