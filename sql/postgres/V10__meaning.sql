-- Attempts: each completion of an assessment is a row of its own. What is here is derived, and is made anew by the rebuild that
-- read_models_layout asks for; the tables are changed in place, so that views and grants of others stay.
TRUNCATE assessment_read_model;
ALTER TABLE assessment_read_model DROP CONSTRAINT assessment_read_model_pkey;
ALTER TABLE assessment_read_model RENAME COLUMN id TO assessment_id;
ALTER TABLE assessment_read_model
    -- The event's id; of records of other services, whose ids may recur once they are forgotten, with the place.
    ADD COLUMN key text COLLATE "C" NOT NULL,
    ADD COLUMN event_id text NOT NULL,
    ADD PRIMARY KEY (tenant, key);
CREATE INDEX assessment_read_model_by_assessment ON assessment_read_model (tenant, assessment_id, completed_at);

-- Which attempt it is: no producer knows what the others have sent, so it is the rank.
CREATE VIEW assessment_attempts AS
SELECT a.*, row_number() OVER (PARTITION BY tenant, assessment_id, user_id ORDER BY completed_at, key) AS attempt
FROM assessment_read_model a;

-- What a learner's attempts at an assessment come to, whatever the order in which they arrive.
CREATE TABLE assessment_results (
    tenant text NOT NULL,
    id text NOT NULL,               -- assessment and learner as one, bounded: three long ids do not fit into an index
    assessment_id text NOT NULL,
    user_id text NOT NULL,
    attempts bigint NOT NULL,
    passes bigint NOT NULL,         -- of the attempts
    passed boolean GENERATED ALWAYS AS (passes > 0) STORED,
    first_passed_at timestamptz(3),
    best_score_percent numeric(12, 6) NOT NULL,
    last_completed_at timestamptz(3) NOT NULL,
    last_key text COLLATE "C" NOT NULL,     -- of several attempts at one time the greatest key is the last
    last_score double precision NOT NULL,
    last_max_score double precision NOT NULL,
    last_score_percent numeric(12, 6) NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX assessment_results_by_assessment ON assessment_results (tenant, assessment_id);
CREATE INDEX assessment_results_by_user ON assessment_results (tenant, user_id);

-- The mean is that of attempts, as it was.
ALTER TABLE learner_progress_read_model RENAME COLUMN assessments_taken TO attempts;
ALTER TABLE learner_progress_read_model RENAME COLUMN assessments_passed TO attempts_passed;
ALTER TABLE learner_progress_read_model
    ADD COLUMN assessments_taken bigint NOT NULL DEFAULT 0,     -- distinct ones
    ADD COLUMN assessments_passed bigint NOT NULL DEFAULT 0;    -- of those, passed at least once

CREATE TABLE content_read_model (
    tenant text NOT NULL,
    id text NOT NULL,
    user_id text,
    content_type text,
    file_name text,
    mime_type text,
    file_size bigint,
    status text NOT NULL CHECK (status IN ('uploaded', 'processing', 'completed', 'partial', 'failed')),
    processing_type text,
    uploaded_at timestamptz(3),
    processing_started_at timestamptz(3),
    processing_completed_at timestamptz(3),
    processing_seconds numeric,
    failures bigint NOT NULL,
    updated_at timestamptz(3) NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (tenant, id)
);

CREATE TABLE task_read_model (
    tenant text NOT NULL,
    id text NOT NULL,
    agent_id text,
    agent_type text,
    task_type text,
    priority text,
    status text NOT NULL CHECK (status IN ('assigned', 'completed', 'failed', 'cancelled')),
    assigned_at timestamptz(3),
    deadline timestamptz(3),
    expected_seconds numeric,
    completed_at timestamptz(3),
    execution_seconds numeric,
    deadline_met boolean,           -- NULL without a deadline, or while the task is open
    updated_at timestamptz(3) NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (tenant, id)
);

-- The layout that the read models were last built in. An older one is rebuilt before the lane read-models goes on.
CREATE TABLE read_models_layout (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    layout integer NOT NULL,
    built_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO read_models_layout (layout)
SELECT CASE WHEN EXISTS (SELECT FROM ledger WHERE lane = 'read-models' AND next_offset IS NOT NULL) THEN 1 ELSE 2 END;

-- Only events that depend on the order of their key hold later ones up.
ALTER TABLE dead_letters ADD COLUMN ordered boolean NOT NULL DEFAULT true;
UPDATE dead_letters SET ordered = false, retry_at = CASE WHEN state = 'parked' THEN coalesce(retry_at, now()) ELSE retry_at END
WHERE lane = 'read-models' AND event_type = 'AssessmentCompleted';

-- What each process does, told by itself: a row for each of its lanes, and one for its publisher. Removed by a process that is
-- stopped; one that says nothing any more stays for a day, so that people see it.
CREATE TABLE parts (
    process text NOT NULL,          -- the owner, as in the ledger
    part text NOT NULL,             -- a lane's name, or publisher
    command text NOT NULL,          -- what was started: up, run, publish
    host text NOT NULL,
    pid integer NOT NULL,
    build text NOT NULL,
    address text NOT NULL DEFAULT '',       -- of its health and metrics
    phase text NOT NULL CHECK (phase IN ('starting', 'running', 'waiting', 'standing by', 'stopped')),
    trouble text,
    since timestamptz NOT NULL DEFAULT now(),       -- it has been in this phase
    partitions integer NOT NULL DEFAULT 0,          -- that it reads
    started_at timestamptz NOT NULL DEFAULT now(),
    heartbeat timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (process, part)
);

GRANT SELECT ON assessment_attempts, assessment_results, content_read_model, task_read_model, read_models_layout, parts
    TO weir_reader;
