-- Jobs: of each, which run may act, and what the schedule has seen to.
CREATE TABLE jobs (
    job text PRIMARY KEY,
    epoch bigint NOT NULL DEFAULT 0,        -- raised by each run: one with a lower epoch acts no more
    scheduled_to timestamptz,               -- moments of the schedule up to here were run, skipped or made up for
    paused_at timestamptz,
    paused_why text NOT NULL DEFAULT ''
);
GRANT SELECT ON jobs TO weir_reader;

-- A run says what it was asked for and how far it is, for everybody to read while it goes on.
ALTER TABLE job_runs
    ADD COLUMN epoch bigint NOT NULL DEFAULT 0,
    ADD COLUMN attempt integer NOT NULL DEFAULT 1,          -- of those that the schedule makes when one fails
    ADD COLUMN arguments jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN run_key text UNIQUE,                         -- a second request with the same key is the first
    ADD COLUMN backend integer,                             -- the session that holds the job's lock
    ADD COLUMN seen_at timestamptz NOT NULL DEFAULT now(),  -- when its process last said that it goes on
    ADD COLUMN done bigint NOT NULL DEFAULT 0,
    ADD COLUMN total bigint,                                -- NULL where it is not known beforehand
    ADD COLUMN unit text NOT NULL DEFAULT '',               -- of done and total: rows, slices, files
    ADD COLUMN rows bigint NOT NULL DEFAULT 0,              -- written
    ADD COLUMN bytes bigint NOT NULL DEFAULT 0,
    ADD COLUMN log_tail text NOT NULL DEFAULT '',
    ADD COLUMN cancel_asked_at timestamptz;
ALTER TABLE job_runs DROP CONSTRAINT job_runs_outcome_check;
-- stopped: told to, and to be gone on with; cancelled: by `weir jobs cancel`.
ALTER TABLE job_runs ADD CONSTRAINT job_runs_outcome_check
    CHECK (outcome IN ('ok', 'different', 'failed', 'abandoned', 'stopped', 'cancelled'));
-- A moment of the schedule may have several attempts.
ALTER TABLE job_runs DROP CONSTRAINT job_runs_job_due_at_key;
ALTER TABLE job_runs ADD UNIQUE (job, due_at, attempt);

-- Pieces of a job that are done: a run that died, or was stopped, is gone on with behind them.
CREATE TABLE job_slices (
    plan text NOT NULL,                     -- what was asked for, with absolute bounds: a hash of it
    slice text NOT NULL,
    rows bigint NOT NULL,
    bytes bigint NOT NULL,
    done_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (plan, slice)
);
GRANT SELECT ON job_slices TO weir_reader;
