-- One row for each run of a scheduled job.
CREATE TABLE job_runs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job text NOT NULL,
    due_at timestamptz,                     -- the moment of the schedule; NULL for a run that someone asked for
    owner text NOT NULL,                    -- the process, for people
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    -- ok, different (verify found a difference), failed, or abandoned (its process died)
    outcome text CHECK (outcome IN ('ok', 'different', 'failed', 'abandoned')),
    detail text NOT NULL DEFAULT '',
    CHECK ((ended_at IS NULL) = (outcome IS NULL)),
    -- Of several processes with one schedule, one runs the job.
    UNIQUE (job, due_at)
);
CREATE INDEX job_runs_by_job ON job_runs (job, id DESC);
GRANT SELECT ON job_runs TO weir_reader;
