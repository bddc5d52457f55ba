CREATE TABLE user_read_model (
    id text NOT NULL,
    tenant text NOT NULL,
    email text,
    username text,
    first_name text,
    last_name text,
    status text NOT NULL CHECK (status IN ('active', 'deactivated')),
    preferences jsonb NOT NULL DEFAULT '{}',
    registration_source text,
    created_at timestamptz(3),
    updated_at timestamptz(3) NOT NULL,
    deactivated_at timestamptz(3),
    version bigint NOT NULL,
    PRIMARY KEY (tenant, id)
);

CREATE TABLE learning_session_read_model (
    id text NOT NULL,
    tenant text NOT NULL,
    user_id text NOT NULL,
    learning_path_id text NOT NULL,
    module_id text NOT NULL,
    device_info jsonb,
    started_at timestamptz(3) NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX learning_session_read_model_by_user ON learning_session_read_model (tenant, user_id, started_at);

CREATE TABLE assessment_read_model (
    id text NOT NULL,
    tenant text NOT NULL,
    user_id text NOT NULL,
    session_id text,
    score double precision NOT NULL,
    max_score double precision NOT NULL,
    score_percent numeric(12, 6) NOT NULL,
    passed boolean NOT NULL,
    time_spent_seconds numeric NOT NULL,
    analytics jsonb,
    completed_at timestamptz(3) NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX assessment_read_model_by_user ON assessment_read_model (tenant, user_id, completed_at);

-- Sums are NUMERIC and exact, so they do not depend on the order in which events arrived.
CREATE TABLE learner_progress_read_model (
    tenant text NOT NULL,
    user_id text NOT NULL,
    sessions bigint NOT NULL DEFAULT 0,
    learning_paths bigint NOT NULL DEFAULT 0,       -- distinct ones; the set itself is in learner_learning_paths
    assessments_taken bigint NOT NULL DEFAULT 0,
    assessments_passed bigint NOT NULL DEFAULT 0,
    score_percent_sum numeric NOT NULL DEFAULT 0,
    average_score_percent numeric GENERATED ALWAYS AS (round(score_percent_sum / nullif(assessments_taken, 0), 6)) STORED,
    time_spent_seconds numeric NOT NULL DEFAULT 0,
    last_activity timestamptz(3),
    PRIMARY KEY (tenant, user_id)
);

CREATE TABLE learner_learning_paths (
    tenant text NOT NULL,
    user_id text NOT NULL,
    learning_path_id text NOT NULL,
    PRIMARY KEY (tenant, user_id, learning_path_id)
);
