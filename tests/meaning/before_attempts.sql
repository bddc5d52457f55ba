-- A data directory's database as the version before attempts left it: demo learners, all lanes in Postgres at the end.
CREATE FUNCTION public.append_events(c_tenant text[], c_stream text[], c_expected bigint[], c_first_event uuid[], c_request_hash bytea[], c_events integer[], e_command integer[], e_ordinal integer[], e_event_id uuid[], e_type text[], e_schema_version text[], e_source text[], e_data text[], e_metadata text[], e_timestamp timestamp with time zone[]) RETURNS TABLE(command integer, outcome text, version bigint, first_position bigint, last_position bigint, recorded timestamp with time zone)
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    head bigint;
    now_ms timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(8626, 1);
    head := coalesce((SELECT max(e.id) FROM events e), 0);
    now_ms := date_trunc('milliseconds', clock_timestamp());
    RETURN QUERY
    WITH c AS MATERIALIZED (
        SELECT u.i::integer AS i, u.tenant, u.stream, u.expected, u.first_event, u.request_hash, u.n,
               known.id AS known_id, known.version AS known_version, known.command_events AS known_events,
               known.recorded_at AS known_recorded, known.request_hash AS known_hash,
               coalesce(latest.version, 0) AS actual
        FROM unnest(c_tenant, c_stream, c_expected, c_first_event, c_request_hash, c_events)
             WITH ORDINALITY AS u(tenant, stream, expected, first_event, request_hash, n, i)
        LEFT JOIN LATERAL (
            SELECT e.id, e.version, e.command_events, e.recorded_at, e.request_hash
            FROM events e WHERE e.event_id = u.first_event
        ) known ON true
        LEFT JOIN LATERAL (
            SELECT e.version FROM events e WHERE e.tenant = u.tenant AND e.stream_id = u.stream
            ORDER BY e.version DESC LIMIT 1
        ) latest ON true
    ), judged AS MATERIALIZED (
        -- The command id comes before the version: a repeat must not look like a conflict with itself.
        SELECT c.*, CASE
            WHEN c.known_id IS NOT NULL AND c.known_hash IS NOT DISTINCT FROM c.request_hash THEN 'repeated'
            WHEN c.known_id IS NOT NULL THEN 'key_reused'
            WHEN c.expected = -1 OR (c.expected = -2 AND c.actual > 0) OR c.expected = c.actual THEN 'appended'
            ELSE 'conflict' END AS verdict
        FROM c
    ), placed AS MATERIALIZED (
        SELECT j.i, j.tenant, j.stream, j.n, j.request_hash,
               j.actual + sum(j.n) OVER (PARTITION BY j.tenant, j.stream ORDER BY j.i) - j.n AS before_version,
               head + sum(j.n) OVER (ORDER BY j.i) - j.n AS before_position
        FROM judged j WHERE j.verdict = 'appended'
    ), inserted AS (
        INSERT INTO events (id, event_id, tenant, stream_id, version, event_type, schema_version, source, event_data,
                            metadata, timestamp, recorded_at, command_events, request_hash)
        SELECT p.before_position + e.ordinal, e.event_id, p.tenant, p.stream, p.before_version + e.ordinal, e.type,
               e.schema_version, e.source, e.data::jsonb, e.metadata::jsonb, e.at, now_ms,
               CASE WHEN e.ordinal = 1 THEN p.n END, CASE WHEN e.ordinal = 1 THEN p.request_hash END
        FROM unnest(e_command, e_ordinal, e_event_id, e_type, e_schema_version, e_source, e_data, e_metadata, e_timestamp)
             AS e(command, ordinal, event_id, type, schema_version, source, data, metadata, at)
        JOIN placed p ON p.i = e.command
    )
    SELECT j.i, j.verdict,
           CASE j.verdict WHEN 'appended' THEN (p.before_version + p.n)::bigint
                          WHEN 'repeated' THEN j.known_version + j.known_events - 1
                          ELSE j.actual END,
           CASE j.verdict WHEN 'appended' THEN (p.before_position + 1)::bigint WHEN 'repeated' THEN j.known_id END,
           CASE j.verdict WHEN 'appended' THEN (p.before_position + p.n)::bigint
                          WHEN 'repeated' THEN j.known_id + j.known_events - 1 END,
           CASE j.verdict WHEN 'appended' THEN now_ms WHEN 'repeated' THEN j.known_recorded END
    FROM judged j LEFT JOIN placed p USING (i)
    ORDER BY j.i;
    PERFORM pg_notify('weir_events', '');
END $$;
CREATE TABLE public.api_tokens (
    id text NOT NULL,
    tenant text NOT NULL,
    name text NOT NULL,
    scopes text[] NOT NULL,
    secret_hash bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    revoked_at timestamp with time zone,
    CONSTRAINT api_tokens_scopes_check CHECK ((scopes <@ ARRAY['command'::text, 'read'::text, 'admin'::text]))
);
CREATE TABLE public.assessment_read_model (
    id text NOT NULL,
    tenant text NOT NULL,
    user_id text NOT NULL,
    session_id text,
    score double precision NOT NULL,
    max_score double precision NOT NULL,
    score_percent numeric(12,6) NOT NULL,
    passed boolean NOT NULL,
    time_spent_seconds numeric NOT NULL,
    analytics jsonb,
    completed_at timestamp(3) with time zone NOT NULL,
    version bigint NOT NULL
);
CREATE TABLE public.dead_letters (
    id bigint NOT NULL,
    lane text NOT NULL,
    source text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    key text,
    state text NOT NULL,
    decodable boolean NOT NULL,
    event_type text,
    reason text NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    retry_at timestamp with time zone,
    headers jsonb DEFAULT '{}'::jsonb NOT NULL,
    payload bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    mirrored_at timestamp with time zone,
    CONSTRAINT dead_letters_state_check CHECK ((state = ANY (ARRAY['parked'::text, 'dead'::text, 'redrive'::text])))
);
ALTER TABLE public.dead_letters ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.dead_letters_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.event_store (
    only_row boolean DEFAULT true NOT NULL,
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    CONSTRAINT event_store_only_row_check CHECK (only_row)
);
CREATE TABLE public.events (
    id bigint NOT NULL,
    event_id uuid NOT NULL,
    tenant text NOT NULL,
    stream_id character varying(300) NOT NULL,
    version bigint NOT NULL,
    event_type character varying(255) NOT NULL,
    schema_version character varying(40) NOT NULL,
    source text NOT NULL,
    event_data jsonb NOT NULL,
    metadata jsonb NOT NULL,
    "timestamp" timestamp(3) with time zone NOT NULL,
    recorded_at timestamp(3) with time zone NOT NULL,
    command_events integer,
    request_hash bytea,
    CONSTRAINT events_tenant_check CHECK (((length(tenant) >= 1) AND (length(tenant) <= 255))),
    CONSTRAINT events_version_check CHECK ((version > 0))
);
CREATE TABLE public.job_runs (
    id bigint NOT NULL,
    job text NOT NULL,
    due_at timestamp with time zone,
    owner text NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    ended_at timestamp with time zone,
    outcome text,
    detail text DEFAULT ''::text NOT NULL,
    CONSTRAINT job_runs_check CHECK (((ended_at IS NULL) = (outcome IS NULL))),
    CONSTRAINT job_runs_outcome_check CHECK ((outcome = ANY (ARRAY['ok'::text, 'different'::text, 'failed'::text, 'abandoned'::text])))
);
ALTER TABLE public.job_runs ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.job_runs_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.learner_learning_paths (
    tenant text NOT NULL,
    user_id text NOT NULL,
    learning_path_id text NOT NULL
);
CREATE TABLE public.learner_progress_read_model (
    tenant text NOT NULL,
    user_id text NOT NULL,
    sessions bigint DEFAULT 0 NOT NULL,
    learning_paths bigint DEFAULT 0 NOT NULL,
    assessments_taken bigint DEFAULT 0 NOT NULL,
    assessments_passed bigint DEFAULT 0 NOT NULL,
    score_percent_sum numeric DEFAULT 0 NOT NULL,
    average_score_percent numeric GENERATED ALWAYS AS (round((score_percent_sum / (NULLIF(assessments_taken, 0))::numeric), 6)) STORED,
    time_spent_seconds numeric DEFAULT 0 NOT NULL,
    last_activity timestamp(3) with time zone
);
CREATE TABLE public.learning_session_read_model (
    id text NOT NULL,
    tenant text NOT NULL,
    user_id text NOT NULL,
    learning_path_id text NOT NULL,
    module_id text NOT NULL,
    device_info jsonb,
    started_at timestamp(3) with time zone NOT NULL,
    version bigint NOT NULL
);
CREATE TABLE public.ledger (
    lane text NOT NULL,
    source text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint,
    epoch bigint NOT NULL,
    owner text NOT NULL,
    claimed_at timestamp with time zone DEFAULT now() NOT NULL,
    advanced_at timestamp with time zone DEFAULT now() NOT NULL,
    retired_at timestamp with time zone,
    "position" bigint
);
CREATE TABLE public.metric_counters (
    name text NOT NULL,
    label text NOT NULL,
    value bigint NOT NULL
);
CREATE TABLE public.metric_histogram_buckets (
    name text NOT NULL,
    bucket integer NOT NULL,
    observations bigint NOT NULL,
    sum_micros numeric NOT NULL
);
CREATE TABLE public.publisher (
    source uuid NOT NULL,
    "position" bigint DEFAULT 0 NOT NULL,
    event_id text,
    switched boolean DEFAULT false NOT NULL,
    epoch bigint DEFAULT 0 NOT NULL,
    owner text DEFAULT ''::text NOT NULL,
    seen_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE public.refinery_schema_history (
    version integer NOT NULL,
    name character varying(255),
    applied_on character varying(255),
    checksum character varying(255)
);
CREATE TABLE public.repeats (
    lane text NOT NULL,
    source text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    tenant text NOT NULL,
    event_id text NOT NULL,
    noticed_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE public.seen (
    lane text NOT NULL,
    tenant text NOT NULL,
    event_id text NOT NULL,
    source text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    seen_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE public.snapshots (
    tenant text NOT NULL,
    stream_id character varying(300) NOT NULL,
    version bigint NOT NULL,
    state_version integer NOT NULL,
    data jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE public.user_read_model (
    id text NOT NULL,
    tenant text NOT NULL,
    email text,
    username text,
    first_name text,
    last_name text,
    status text NOT NULL,
    preferences jsonb DEFAULT '{}'::jsonb NOT NULL,
    registration_source text,
    created_at timestamp(3) with time zone,
    updated_at timestamp(3) with time zone NOT NULL,
    deactivated_at timestamp(3) with time zone,
    version bigint NOT NULL,
    CONSTRAINT user_read_model_status_check CHECK ((status = ANY (ARRAY['active'::text, 'deactivated'::text])))
);
INSERT INTO public.assessment_read_model VALUES ('assessment-9a70a6b0b6700dda-10', 'default', 'learner-9a70a6b0b6700dda-8', NULL, 22, 100, 22.000000, false, 1928.917000, NULL, '2026-11-28 15:07:14.648+00', 1);
INSERT INTO public.assessment_read_model VALUES ('assessment-9a70a6b0b6700dda-12', 'default', 'learner-9a70a6b0b6700dda-10', NULL, 37, 100, 37.000000, false, 265.767000, NULL, '2026-11-28 15:07:14.651+00', 1);
INSERT INTO public.assessment_read_model VALUES ('assessment-9a70a6b0b6700dda-13', 'default', 'learner-9a70a6b0b6700dda-7', NULL, 59, 100, 59.000000, true, 1327.142000, NULL, '2026-11-28 15:07:14.653+00', 1);
INSERT INTO public.assessment_read_model VALUES ('assessment-9a70a6b0b6700dda-15', 'default', 'learner-9a70a6b0b6700dda-11', NULL, 17, 100, 17.000000, false, 1278.593000, NULL, '2026-11-28 15:07:14.66+00', 1);
INSERT INTO public.assessment_read_model VALUES ('assessment-9a70a6b0b6700dda-16', 'default', 'learner-9a70a6b0b6700dda-12', NULL, 43, 100, 43.000000, true, 959.659000, NULL, '2026-11-28 15:07:14.663+00', 1);
INSERT INTO public.assessment_read_model VALUES ('assessment-9a70a6b0b6700dda-19', 'default', 'learner-9a70a6b0b6700dda-11', NULL, 72, 100, 72.000000, true, 1827.537000, NULL, '2026-11-28 15:07:14.669+00', 1);
INSERT INTO public.assessment_read_model VALUES ('assessment-9a70a6b0b6700dda-20', 'default', 'learner-9a70a6b0b6700dda-4', NULL, 83, 100, 83.000000, true, 1103.317000, NULL, '2026-11-28 15:07:14.671+00', 1);
INSERT INTO public.assessment_read_model VALUES ('assessment-9a70a6b0b6700dda-21', 'default', 'learner-9a70a6b0b6700dda-12', NULL, 24, 100, 24.000000, false, 297.743000, NULL, '2026-11-28 15:07:14.673+00', 1);
INSERT INTO public.assessment_read_model VALUES ('assessment-9a70a6b0b6700dda-23', 'default', 'learner-9a70a6b0b6700dda-12', NULL, 70, 100, 70.000000, true, 292.631000, NULL, '2026-11-28 15:07:14.677+00', 1);
INSERT INTO public.assessment_read_model VALUES ('assessment-9a70a6b0b6700dda-26', 'default', 'learner-9a70a6b0b6700dda-10', NULL, 56, 100, 56.000000, true, 148.167000, NULL, '2026-11-28 15:07:14.685+00', 1);
INSERT INTO public.assessment_read_model VALUES ('assessment-9a70a6b0b6700dda-27', 'default', 'learner-9a70a6b0b6700dda-9', NULL, 35, 100, 35.000000, false, 2519.632000, NULL, '2026-11-28 15:07:14.687+00', 1);
INSERT INTO public.assessment_read_model VALUES ('assessment-9a70a6b0b6700dda-28', 'default', 'learner-9a70a6b0b6700dda-2', NULL, 94, 100, 94.000000, true, 410.519000, NULL, '2026-11-28 15:07:14.689+00', 1);
INSERT INTO public.assessment_read_model VALUES ('assessment-9a70a6b0b6700dda-37', 'default', 'learner-9a70a6b0b6700dda-1', NULL, 45, 100, 45.000000, true, 1461.954000, NULL, '2026-11-28 15:07:14.702+00', 1);
INSERT INTO public.assessment_read_model VALUES ('assessment-9a70a6b0b6700dda-39', 'default', 'learner-9a70a6b0b6700dda-2', NULL, 49, 100, 49.000000, true, 3277.657000, NULL, '2026-11-28 15:07:14.706+00', 1);
INSERT INTO public.assessment_read_model VALUES ('assessment-9a70a6b0b6700dda-4', 'default', 'learner-9a70a6b0b6700dda-8', NULL, 49, 100, 49.000000, true, 1185.968000, NULL, '2026-11-28 15:07:14.633+00', 1);
INSERT INTO public.assessment_read_model VALUES ('assessment-9a70a6b0b6700dda-40', 'default', 'learner-9a70a6b0b6700dda-13', NULL, 18, 100, 18.000000, false, 1263.198000, NULL, '2026-11-28 15:07:14.714+00', 1);
INSERT INTO public.assessment_read_model VALUES ('assessment-9a70a6b0b6700dda-43', 'default', 'learner-9a70a6b0b6700dda-10', NULL, 85, 100, 85.000000, true, 1831.615000, NULL, '2026-11-28 15:07:14.717+00', 1);
INSERT INTO public.assessment_read_model VALUES ('assessment-9a70a6b0b6700dda-5', 'default', 'learner-9a70a6b0b6700dda-6', NULL, 44, 100, 44.000000, true, 2711.451000, NULL, '2026-11-28 15:07:14.635+00', 1);
INSERT INTO public.assessment_read_model VALUES ('assessment-9a70a6b0b6700dda-50', 'default', 'learner-9a70a6b0b6700dda-0', NULL, 32, 100, 32.000000, false, 633.061000, NULL, '2026-11-28 15:07:14.733+00', 1);
INSERT INTO public.assessment_read_model VALUES ('assessment-9a70a6b0b6700dda-52', 'default', 'learner-9a70a6b0b6700dda-3', NULL, 20, 100, 20.000000, false, 1661.162000, NULL, '2026-11-28 15:07:14.74+00', 1);
INSERT INTO public.assessment_read_model VALUES ('assessment-9a70a6b0b6700dda-53', 'default', 'learner-9a70a6b0b6700dda-3', NULL, 0, 100, 0.000000, false, 3137.109000, NULL, '2026-11-28 15:07:14.741+00', 1);
INSERT INTO public.assessment_read_model VALUES ('assessment-9a70a6b0b6700dda-65', 'default', 'learner-9a70a6b0b6700dda-17', NULL, 75, 100, 75.000000, true, 3313.572000, NULL, '2026-11-28 15:07:14.773+00', 1);
INSERT INTO public.assessment_read_model VALUES ('assessment-9a70a6b0b6700dda-67', 'default', 'learner-9a70a6b0b6700dda-4', NULL, 37, 100, 37.000000, false, 3486.692000, NULL, '2026-11-28 15:07:14.778+00', 1);
INSERT INTO public.assessment_read_model VALUES ('assessment-9a70a6b0b6700dda-69', 'default', 'learner-9a70a6b0b6700dda-19', NULL, 45, 100, 45.000000, true, 2928.028000, NULL, '2026-11-28 15:07:14.782+00', 1);
INSERT INTO public.assessment_read_model VALUES ('assessment-9a70a6b0b6700dda-7', 'default', 'learner-9a70a6b0b6700dda-2', NULL, 25, 100, 25.000000, false, 3362.267000, NULL, '2026-11-28 15:07:14.641+00', 1);
INSERT INTO public.event_store VALUES (true, '080738ca-59ed-4269-bb56-fbd4ec8964e9');
INSERT INTO public.events VALUES (1, '8a4d6040-2d45-5cf9-877d-f763a08ae153', 'default', 'User-learner-9a70a6b0b6700dda-1', 1, 'UserRegistered', '1.0.0', 'demo', '{"email": "learner-9a70a6b0b6700dda-1@example.com", "userId": "learner-9a70a6b0b6700dda-1", "profile": {"lastName": "2", "firstName": "Learner", "preferences": {"timezone": "UTC"}}, "username": "learner-9a70a6b0b6700dda-1", "timestamp": "2026-11-28T15:07:14.612Z", "registrationSource": "demo"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.612+00', '2026-11-28 15:07:14.643+00', 1, '\x9a0e4e43c836020b3d8ce21400500cbbc1133d3cfb0e779c4dbc52241f80fbd4');
INSERT INTO public.events VALUES (2, '63e1660e-54ca-5cf8-b30d-6b267f2609d5', 'default', 'User-learner-9a70a6b0b6700dda-0', 1, 'UserRegistered', '1.0.0', 'demo', '{"email": "learner-9a70a6b0b6700dda-0@example.com", "userId": "learner-9a70a6b0b6700dda-0", "profile": {"lastName": "1", "firstName": "Learner", "preferences": {"timezone": "UTC"}}, "username": "learner-9a70a6b0b6700dda-0", "timestamp": "2026-11-28T15:07:14.613Z", "registrationSource": "demo"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.613+00', '2026-11-28 15:07:14.679+00', 1, '\x16cd0b6bc7c330f1f24ad1bc088c3891d95d52e1cbf00ed7f226535098c7a17d');
INSERT INTO public.events VALUES (3, '71b48240-58ae-5007-9c9c-d1a593c4cd54', 'default', 'User-learner-9a70a6b0b6700dda-4', 1, 'UserRegistered', '1.0.0', 'demo', '{"email": "learner-9a70a6b0b6700dda-4@example.com", "userId": "learner-9a70a6b0b6700dda-4", "profile": {"lastName": "5", "firstName": "Learner", "preferences": {"timezone": "UTC"}}, "username": "learner-9a70a6b0b6700dda-4", "timestamp": "2026-11-28T15:07:14.613Z", "registrationSource": "demo"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.613+00', '2026-11-28 15:07:14.679+00', 1, '\x3894986609b88b12a8d391477e7be38d85273521a17b557121f605ed57fc75b1');
INSERT INTO public.events VALUES (4, '12ab82d7-3c35-534a-8e8a-82bb7857eb23', 'default', 'User-learner-9a70a6b0b6700dda-3', 1, 'UserRegistered', '1.0.0', 'demo', '{"email": "learner-9a70a6b0b6700dda-3@example.com", "userId": "learner-9a70a6b0b6700dda-3", "profile": {"lastName": "4", "firstName": "Learner", "preferences": {"timezone": "UTC"}}, "username": "learner-9a70a6b0b6700dda-3", "timestamp": "2026-11-28T15:07:14.613Z", "registrationSource": "demo"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.613+00', '2026-11-28 15:07:14.679+00', 1, '\x9a557189125f232bfe9b217f5bc082bd6257b75ff2e20574e3a52e3785fc5de1');
INSERT INTO public.events VALUES (5, '4ba430ab-b635-55a2-9d6f-752f71a92363', 'default', 'User-learner-9a70a6b0b6700dda-5', 1, 'UserRegistered', '1.0.0', 'demo', '{"email": "learner-9a70a6b0b6700dda-5@example.com", "userId": "learner-9a70a6b0b6700dda-5", "profile": {"lastName": "6", "firstName": "Learner", "preferences": {"timezone": "UTC"}}, "username": "learner-9a70a6b0b6700dda-5", "timestamp": "2026-11-28T15:07:14.616Z", "registrationSource": "demo"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.616+00', '2026-11-28 15:07:14.679+00', 1, '\x649081b464cdb9c28ebcc3c85594900eabe09771e9dbb7572a9f36311865a487');
INSERT INTO public.events VALUES (6, 'd8885981-ef50-5138-a884-0c7da8153921', 'default', 'User-learner-9a70a6b0b6700dda-6', 1, 'UserRegistered', '1.0.0', 'demo', '{"email": "learner-9a70a6b0b6700dda-6@example.com", "userId": "learner-9a70a6b0b6700dda-6", "profile": {"lastName": "7", "firstName": "Learner", "preferences": {"timezone": "UTC"}}, "username": "learner-9a70a6b0b6700dda-6", "timestamp": "2026-11-28T15:07:14.617Z", "registrationSource": "demo"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.617+00', '2026-11-28 15:07:14.679+00', 1, '\x215b831e46a050fddc81607df61c9f3f9b42cc4e81ee274c86927d7e995700b9');
INSERT INTO public.events VALUES (7, 'd674f12c-f2db-56d2-ae49-c1eafc0a360a', 'default', 'User-learner-9a70a6b0b6700dda-8', 1, 'UserRegistered', '1.0.0', 'demo', '{"email": "learner-9a70a6b0b6700dda-8@example.com", "userId": "learner-9a70a6b0b6700dda-8", "profile": {"lastName": "9", "firstName": "Learner", "preferences": {"timezone": "UTC"}}, "username": "learner-9a70a6b0b6700dda-8", "timestamp": "2026-11-28T15:07:14.621Z", "registrationSource": "demo"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.621+00', '2026-11-28 15:07:14.679+00', 1, '\x6a05ba3a27f6c70a32ff29e17d9fdfc99221b6d05773d6560ea5858fa817d0da');
INSERT INTO public.events VALUES (8, '54ccdd0d-9e6a-55bc-882c-0d76ded18e5f', 'default', 'User-learner-9a70a6b0b6700dda-7', 1, 'UserRegistered', '1.0.0', 'demo', '{"email": "learner-9a70a6b0b6700dda-7@example.com", "userId": "learner-9a70a6b0b6700dda-7", "profile": {"lastName": "8", "firstName": "Learner", "preferences": {"timezone": "UTC"}}, "username": "learner-9a70a6b0b6700dda-7", "timestamp": "2026-11-28T15:07:14.620Z", "registrationSource": "demo"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.62+00', '2026-11-28 15:07:14.679+00', 1, '\x8f964edb4bb2da6bd0a5295ff504cb81d2eb0fd2d5c0e3572ecd36a909964814');
INSERT INTO public.events VALUES (9, '9fed2795-3f28-5a52-b824-ce36717bf3bf', 'default', 'User-learner-9a70a6b0b6700dda-9', 1, 'UserRegistered', '1.0.0', 'demo', '{"email": "learner-9a70a6b0b6700dda-9@example.com", "userId": "learner-9a70a6b0b6700dda-9", "profile": {"lastName": "10", "firstName": "Learner", "preferences": {"timezone": "UTC"}}, "username": "learner-9a70a6b0b6700dda-9", "timestamp": "2026-11-28T15:07:14.623Z", "registrationSource": "demo"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.623+00', '2026-11-28 15:07:14.679+00', 1, '\x504c7e9355e64e3a4f04f2c5830ff638ea6bd3db0a226168b26e0aa1731daf75');
INSERT INTO public.events VALUES (10, 'fd22a0a2-5366-5235-b866-8f2207b937be', 'default', 'Content-content-9a70a6b0b6700dda-1', 1, 'ContentUploaded', '1.2.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-0", "fileUrl": "https://files.example/content-9a70a6b0b6700dda-1", "fileName": "notes", "fileSize": 4189948, "mimeType": "application/octet-stream", "contentId": "content-9a70a6b0b6700dda-1", "timestamp": "2026-11-28T15:07:14.625Z", "contentType": "image"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.625+00', '2026-11-28 15:07:14.679+00', 1, '\xcc37826c45350c287a29f84c2bacf7584287e056d67fec0357ca026c687a4c49');
INSERT INTO public.events VALUES (11, 'cede625e-c179-5634-afc8-7f4c2a98c04c', 'default', 'User-learner-9a70a6b0b6700dda-2', 1, 'UserProfileUpdated', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-2", "newValues": {"language": "fr"}, "timestamp": "2026-11-28T15:07:14.627Z", "changedFields": ["language"], "previousValues": {}}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.627+00', '2026-11-28 15:07:14.679+00', 1, '\xe0a2f500b37e1e68eb3b20a7ba01a62638c3a2ff4febb7dcbfb3f853160b59fd');
INSERT INTO public.events VALUES (12, '14ebf1cb-1c38-5056-bad8-b5fa157179d5', 'default', 'Task-task-9a70a6b0b6700dda-2', 1, 'TaskAssigned', '1.0.0', 'demo', '{"taskId": "task-9a70a6b0b6700dda-2", "agentId": "agent-7", "deadline": "2026-11-28T15:07:31.812Z", "priority": "low", "taskType": "summarise", "agentType": "analyzer", "timestamp": "2026-11-28T15:07:14.629Z", "expectedDuration": 60000}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.629+00', '2026-11-28 15:07:14.679+00', 1, '\x29f09e33bcb242ffc3b145d6b70362d300081c7d0352f4f22c180b51311c667f');
INSERT INTO public.events VALUES (13, '263a83a4-37f1-5cdf-a82b-dd62386fc990', 'default', 'Content-content-9a70a6b0b6700dda-3', 1, 'ContentUploaded', '1.2.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-0", "fileUrl": "https://files.example/content-9a70a6b0b6700dda-3", "fileName": "notes", "fileSize": 3576103, "mimeType": "application/octet-stream", "contentId": "content-9a70a6b0b6700dda-3", "timestamp": "2026-11-28T15:07:14.631Z", "contentType": "audio"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.631+00', '2026-11-28 15:07:14.679+00', 1, '\xc903999341d673619a5b658002cfd0e5c06590fa52e7d7dab7a683e7aaddfac2');
INSERT INTO public.events VALUES (14, '0b0eed80-66c9-55a8-9c97-64ab4e29fc0b', 'default', 'Assessment-assessment-9a70a6b0b6700dda-4', 1, 'AssessmentCompleted', '1.1.0', 'demo', '{"score": 49, "passed": true, "userId": "learner-9a70a6b0b6700dda-8", "maxScore": 100, "timeSpent": 1185968, "timestamp": "2026-11-28T15:07:14.633Z", "assessmentId": "assessment-9a70a6b0b6700dda-4"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.633+00', '2026-11-28 15:07:14.679+00', 1, '\xddd04195d8ca7f01d22c3c0142586566d589f22efbefdb0e56afb117fd9950b7');
INSERT INTO public.events VALUES (15, '1bccc30a-0589-55ae-b467-7ae69c05b0d8', 'default', 'User-learner-9a70a6b0b6700dda-10', 1, 'UserRegistered', '1.0.0', 'demo', '{"email": "learner-9a70a6b0b6700dda-10@example.com", "userId": "learner-9a70a6b0b6700dda-10", "profile": {"lastName": "11", "firstName": "Learner", "preferences": {"timezone": "UTC"}}, "username": "learner-9a70a6b0b6700dda-10", "timestamp": "2026-11-28T15:07:14.638Z", "registrationSource": "demo"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.638+00', '2026-11-28 15:07:14.679+00', 1, '\x828a8a19f4e6d47599a2b71cb777fdf8ad49533ae179efed2ec296a1a4066756');
INSERT INTO public.events VALUES (16, 'b80b3756-4e71-5856-adcf-b43d2f122592', 'default', 'Assessment-assessment-9a70a6b0b6700dda-5', 1, 'AssessmentCompleted', '1.1.0', 'demo', '{"score": 44, "passed": true, "userId": "learner-9a70a6b0b6700dda-6", "maxScore": 100, "timeSpent": 2711451, "timestamp": "2026-11-28T15:07:14.635Z", "assessmentId": "assessment-9a70a6b0b6700dda-5"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.635+00', '2026-11-28 15:07:14.679+00', 1, '\x2985b94cb2ff39f440dc1eb9688573d40e65ca2b0a0e55b975616dc0c2b42729');
INSERT INTO public.events VALUES (17, '20625abf-e89b-5a1d-8e4b-82056c999e95', 'default', 'Assessment-assessment-9a70a6b0b6700dda-7', 1, 'AssessmentCompleted', '1.1.0', 'demo', '{"score": 25, "passed": false, "userId": "learner-9a70a6b0b6700dda-2", "maxScore": 100, "timeSpent": 3362267, "timestamp": "2026-11-28T15:07:14.641Z", "assessmentId": "assessment-9a70a6b0b6700dda-7"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.641+00', '2026-11-28 15:07:14.679+00', 1, '\xd4f7b40a8a5436f61fdbd35b2390174f927baabbf850ea03cb78d1b129b0bd8a');
INSERT INTO public.events VALUES (18, '0ce2ef86-8536-5de9-acea-9c0fff4ecb06', 'default', 'Task-task-9a70a6b0b6700dda-6', 1, 'TaskAssigned', '1.0.0', 'demo', '{"taskId": "task-9a70a6b0b6700dda-6", "agentId": "agent-7", "priority": "low", "taskType": "summarise", "agentType": "creator", "timestamp": "2026-11-28T15:07:14.639Z", "expectedDuration": 60000}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.639+00', '2026-11-28 15:07:14.679+00', 1, '\x5d5a633b19d46585a2c2d079006f443329f50e52112d790e28d577f33af35a35');
INSERT INTO public.events VALUES (19, 'cb1ab1dd-d9af-5a3b-8a4e-374ab6e5734a', 'default', 'LearningSession-session-9a70a6b0b6700dda-8', 1, 'LearningSessionStarted', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-5", "moduleId": "m2", "sessionId": "session-9a70a6b0b6700dda-8", "timestamp": "2026-11-28T15:07:14.645Z", "deviceInfo": {"os": "linux", "type": "phone"}, "learningPathId": "algebra"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.645+00', '2026-11-28 15:07:14.679+00', 1, '\xff9ce32ed6edcda39c4cb69cdf85e7fe7594fad2ac1dca5499f3269a764e80ca');
INSERT INTO public.events VALUES (20, 'f7f4a5bb-08b4-5b55-bcb5-c3c92f034f28', 'default', 'Assessment-assessment-9a70a6b0b6700dda-10', 1, 'AssessmentCompleted', '1.1.0', 'demo', '{"score": 22, "passed": false, "userId": "learner-9a70a6b0b6700dda-8", "maxScore": 100, "timeSpent": 1928917, "timestamp": "2026-11-28T15:07:14.648Z", "assessmentId": "assessment-9a70a6b0b6700dda-10"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.648+00', '2026-11-28 15:07:14.679+00', 1, '\x1bd3482f4cb4341f14801d156971d220f843696d56ba4e3048e5b4f44638bdeb');
INSERT INTO public.events VALUES (21, '94006a62-bad1-57c4-b498-6362f6017826', 'default', 'LearningSession-session-9a70a6b0b6700dda-11', 1, 'LearningSessionStarted', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-6", "moduleId": "m3", "sessionId": "session-9a70a6b0b6700dda-11", "timestamp": "2026-11-28T15:07:14.650Z", "deviceInfo": {"os": "linux", "type": "phone"}, "learningPathId": "algebra"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.65+00', '2026-11-28 15:07:14.679+00', 1, '\x2628764f6628ee1be01f65de1c8e6f877d1716fdfbfe597b6a398fd0be696b79');
INSERT INTO public.events VALUES (22, 'd536c3e6-5bb9-5e22-a937-3ffec27e4ebb', 'default', 'LearningSession-session-9a70a6b0b6700dda-9', 1, 'LearningSessionStarted', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-7", "moduleId": "m3", "sessionId": "session-9a70a6b0b6700dda-9", "timestamp": "2026-11-28T15:07:14.645Z", "deviceInfo": {"os": "linux", "type": "phone"}, "learningPathId": "algebra"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.645+00', '2026-11-28 15:07:14.679+00', 1, '\x63d79724203da6d4d4e4a55b4f951f86ece8b8898f646478920f98d36688f895');
INSERT INTO public.events VALUES (23, '5c890c60-f74f-5318-9c22-424d2392f6a1', 'default', 'Assessment-assessment-9a70a6b0b6700dda-12', 1, 'AssessmentCompleted', '1.1.0', 'demo', '{"score": 37, "passed": false, "userId": "learner-9a70a6b0b6700dda-10", "maxScore": 100, "timeSpent": 265767, "timestamp": "2026-11-28T15:07:14.651Z", "assessmentId": "assessment-9a70a6b0b6700dda-12"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.651+00', '2026-11-28 15:07:14.679+00', 1, '\x77462cf94ecc355da82df0dcc903dbf190cdd77ff79dc92cdf62e4e751c22445');
INSERT INTO public.events VALUES (24, 'e7250b3f-84b2-5a93-b300-02bd6808cfc7', 'default', 'Assessment-assessment-9a70a6b0b6700dda-13', 1, 'AssessmentCompleted', '1.1.0', 'demo', '{"score": 59, "passed": true, "userId": "learner-9a70a6b0b6700dda-7", "maxScore": 100, "timeSpent": 1327142, "timestamp": "2026-11-28T15:07:14.653Z", "assessmentId": "assessment-9a70a6b0b6700dda-13"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.653+00', '2026-11-28 15:07:14.679+00', 1, '\x4f8e57ddcc37398a6304cd92ccd405594ff15786a2b868c0f6d8bed9d7fe0257');
INSERT INTO public.events VALUES (25, 'f53881f9-a094-5e6c-9ce1-4c2790f41b78', 'default', 'LearningSession-session-9a70a6b0b6700dda-14', 1, 'LearningSessionStarted', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-9", "moduleId": "m1", "sessionId": "session-9a70a6b0b6700dda-14", "timestamp": "2026-11-28T15:07:14.655Z", "deviceInfo": {"os": "linux", "type": "phone"}, "learningPathId": "algebra"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.655+00', '2026-11-28 15:07:14.704+00', 1, '\x1074500536f17e94b18c7adade86268eb1c7ed5d89827afb5f8089b17f34ed57');
INSERT INTO public.events VALUES (26, '40bb0c04-84c6-58b0-8846-8da22cf21f46', 'default', 'Assessment-assessment-9a70a6b0b6700dda-15', 1, 'AssessmentCompleted', '1.1.0', 'demo', '{"score": 17, "passed": false, "userId": "learner-9a70a6b0b6700dda-11", "maxScore": 100, "timeSpent": 1278593, "timestamp": "2026-11-28T15:07:14.660Z", "assessmentId": "assessment-9a70a6b0b6700dda-15"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.66+00', '2026-11-28 15:07:14.704+00', 1, '\x6466299c43850e731e9a409cdbe9a0fc8c43ae87b29d59efd69e5e227dff03bf');
INSERT INTO public.events VALUES (27, 'b26abc69-8ba2-5b78-a592-359cd3b110b2', 'default', 'User-learner-9a70a6b0b6700dda-12', 1, 'UserRegistered', '1.0.0', 'demo', '{"email": "learner-9a70a6b0b6700dda-12@example.com", "userId": "learner-9a70a6b0b6700dda-12", "profile": {"lastName": "13", "firstName": "Learner", "preferences": {"timezone": "UTC"}}, "username": "learner-9a70a6b0b6700dda-12", "timestamp": "2026-11-28T15:07:14.661Z", "registrationSource": "demo"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.661+00', '2026-11-28 15:07:14.704+00', 1, '\x96e72e4c5e07f894217b3623fceda0370466a20debd8203f6cde60cf0180e837');
INSERT INTO public.events VALUES (28, 'f451b4ef-5df5-52ef-90ee-4303634118b1', 'default', 'Assessment-assessment-9a70a6b0b6700dda-16', 1, 'AssessmentCompleted', '1.1.0', 'demo', '{"score": 43, "passed": true, "userId": "learner-9a70a6b0b6700dda-12", "maxScore": 100, "timeSpent": 959659, "timestamp": "2026-11-28T15:07:14.663Z", "assessmentId": "assessment-9a70a6b0b6700dda-16"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.663+00', '2026-11-28 15:07:14.704+00', 1, '\x0d85fc6941214716aa1f848e981b5249c578e2a01bda036980907395a5ce079a');
INSERT INTO public.events VALUES (29, '95516074-4908-55cc-acce-2e93ad7547cf', 'default', 'LearningSession-session-9a70a6b0b6700dda-17', 1, 'LearningSessionStarted', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-0", "moduleId": "m1", "sessionId": "session-9a70a6b0b6700dda-17", "timestamp": "2026-11-28T15:07:14.665Z", "deviceInfo": {"os": "linux", "type": "phone"}, "learningPathId": "biology"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.665+00', '2026-11-28 15:07:14.704+00', 1, '\x6dd4ab3028eab1d2a5828e1ab6a5df3e6d35744032b13c3478b71a264489020f');
INSERT INTO public.events VALUES (30, '51584eb8-e081-521a-ba76-194ca8742372', 'default', 'Assessment-assessment-9a70a6b0b6700dda-19', 1, 'AssessmentCompleted', '1.1.0', 'demo', '{"score": 72, "passed": true, "userId": "learner-9a70a6b0b6700dda-11", "maxScore": 100, "timeSpent": 1827537, "timestamp": "2026-11-28T15:07:14.669Z", "assessmentId": "assessment-9a70a6b0b6700dda-19"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.669+00', '2026-11-28 15:07:14.704+00', 1, '\x59e7cdf1d7b2e250e10518193b07923728bb3dfa715213a6c068de4339f4471a');
INSERT INTO public.events VALUES (31, '42439c9e-414a-518b-943b-8fbaf7aa83d2', 'default', 'LearningSession-session-9a70a6b0b6700dda-18', 1, 'LearningSessionStarted', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-2", "moduleId": "m1", "sessionId": "session-9a70a6b0b6700dda-18", "timestamp": "2026-11-28T15:07:14.667Z", "deviceInfo": {"os": "linux", "type": "phone"}, "learningPathId": "history"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.667+00', '2026-11-28 15:07:14.704+00', 1, '\x817c7056ca2ba7fd2bf732e5fa72b64550152e6ed194e8289bafaa0683c6909c');
INSERT INTO public.events VALUES (32, '0cf83812-5835-5bed-821e-f2f82fbb7aac', 'default', 'Assessment-assessment-9a70a6b0b6700dda-20', 1, 'AssessmentCompleted', '1.1.0', 'demo', '{"score": 83, "passed": true, "userId": "learner-9a70a6b0b6700dda-4", "maxScore": 100, "timeSpent": 1103317, "timestamp": "2026-11-28T15:07:14.671Z", "assessmentId": "assessment-9a70a6b0b6700dda-20"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.671+00', '2026-11-28 15:07:14.704+00', 1, '\x63efc4ef5025bb070610e2914ffa5c5a75ef5886e755e1c5e835cf92e152bf3b');
INSERT INTO public.events VALUES (33, 'f8699423-9265-5368-9daa-f93430b05e8e', 'default', 'Assessment-assessment-9a70a6b0b6700dda-21', 1, 'AssessmentCompleted', '1.1.0', 'demo', '{"score": 24, "passed": false, "userId": "learner-9a70a6b0b6700dda-12", "maxScore": 100, "timeSpent": 297743, "timestamp": "2026-11-28T15:07:14.673Z", "assessmentId": "assessment-9a70a6b0b6700dda-21"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.673+00', '2026-11-28 15:07:14.704+00', 1, '\x1786157fece09901ea448c23125b395a2eb640856571ff6020922588da201a18');
INSERT INTO public.events VALUES (34, '9d753f0c-19bd-56eb-a35d-f7baf11ab6be', 'default', 'Content-content-9a70a6b0b6700dda-22', 1, 'ContentUploaded', '1.2.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-11", "fileUrl": "https://files.example/content-9a70a6b0b6700dda-22", "fileName": "notes", "fileSize": 2495495, "mimeType": "application/octet-stream", "contentId": "content-9a70a6b0b6700dda-22", "timestamp": "2026-11-28T15:07:14.675Z", "contentType": "image"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.675+00', '2026-11-28 15:07:14.704+00', 1, '\xe22ac1a915326cc1b208d2df1bb2c037c9c894f2b1a4bdf93f739b3b6aa52945');
INSERT INTO public.events VALUES (35, '22bc03ce-9944-59d6-9a84-7ad49b187f54', 'default', 'User-learner-9a70a6b0b6700dda-11', 1, 'UserRegistered', '1.0.0', 'demo', '{"email": "learner-9a70a6b0b6700dda-11@example.com", "userId": "learner-9a70a6b0b6700dda-11", "profile": {"lastName": "12", "firstName": "Learner", "preferences": {"timezone": "UTC"}}, "username": "learner-9a70a6b0b6700dda-11", "timestamp": "2026-11-28T15:07:14.658Z", "registrationSource": "demo"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.658+00', '2026-11-28 15:07:14.704+00', 1, '\x17e74e8890b1608cf40b0ef66534fd3618502f730b4c96144b2e319f325d503d');
INSERT INTO public.events VALUES (36, '9c07a898-d2e4-54b6-ac60-7d2067ac3341', 'default', 'User-learner-9a70a6b0b6700dda-13', 1, 'UserRegistered', '1.0.0', 'demo', '{"email": "learner-9a70a6b0b6700dda-13@example.com", "userId": "learner-9a70a6b0b6700dda-13", "profile": {"lastName": "14", "firstName": "Learner", "preferences": {"timezone": "UTC"}}, "username": "learner-9a70a6b0b6700dda-13", "timestamp": "2026-11-28T15:07:14.679Z", "registrationSource": "demo"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.679+00', '2026-11-28 15:07:14.704+00', 1, '\x8c6fc197be07dd49a1fef5dbd18e41aee7c408ff87c6f11c2c48bbef8025d66e');
INSERT INTO public.events VALUES (37, 'fe6b0f21-79b0-59cf-ad04-f12f58fb5a04', 'default', 'Task-task-9a70a6b0b6700dda-24', 1, 'TaskAssigned', '1.0.0', 'demo', '{"taskId": "task-9a70a6b0b6700dda-24", "agentId": "agent-5", "deadline": "2026-11-28T15:07:32.877Z", "priority": "normal", "taskType": "summarise", "agentType": "creator", "timestamp": "2026-11-28T15:07:14.683Z", "expectedDuration": 60000}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.683+00', '2026-11-28 15:07:14.704+00', 1, '\xe60f5af649109e280776dad0d361973604b2dc712c9997658e99e44af402418d');
INSERT INTO public.events VALUES (38, '8848ca89-e2cb-5f42-8172-e9190fb65fe1', 'default', 'LearningSession-session-9a70a6b0b6700dda-25', 1, 'LearningSessionStarted', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-6", "moduleId": "m3", "sessionId": "session-9a70a6b0b6700dda-25", "timestamp": "2026-11-28T15:07:14.683Z", "deviceInfo": {"os": "linux", "type": "phone"}, "learningPathId": "algebra"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.683+00', '2026-11-28 15:07:14.704+00', 1, '\xef3201d0ad5883af66bd2b0e828faa8b119e0a094d2f19dcad1df3ec91b942c7');
INSERT INTO public.events VALUES (39, '3fd8597e-1db7-561b-9af1-f580bcdc5c2d', 'default', 'Assessment-assessment-9a70a6b0b6700dda-26', 1, 'AssessmentCompleted', '1.1.0', 'demo', '{"score": 56, "passed": true, "userId": "learner-9a70a6b0b6700dda-10", "maxScore": 100, "timeSpent": 148167, "timestamp": "2026-11-28T15:07:14.685Z", "assessmentId": "assessment-9a70a6b0b6700dda-26"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.685+00', '2026-11-28 15:07:14.704+00', 1, '\xde4e947e3330d69c48ea2fbe1b83a967ccf36562a31d3aac63a56cf939e45254');
INSERT INTO public.events VALUES (40, 'f1777ddd-302e-5627-871e-85ef9b16cad7', 'default', 'Assessment-assessment-9a70a6b0b6700dda-27', 1, 'AssessmentCompleted', '1.1.0', 'demo', '{"score": 35, "passed": false, "userId": "learner-9a70a6b0b6700dda-9", "maxScore": 100, "timeSpent": 2519632, "timestamp": "2026-11-28T15:07:14.687Z", "assessmentId": "assessment-9a70a6b0b6700dda-27"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.687+00', '2026-11-28 15:07:14.704+00', 1, '\xad8ed973dec6efec96a91cb9be6755377c25bf6980027e54db8e5b2b7b28912b');
INSERT INTO public.events VALUES (41, '47247668-76e9-558d-8897-f4187acf9ca4', 'default', 'Assessment-assessment-9a70a6b0b6700dda-28', 1, 'AssessmentCompleted', '1.1.0', 'demo', '{"score": 94, "passed": true, "userId": "learner-9a70a6b0b6700dda-2", "maxScore": 100, "timeSpent": 410519, "timestamp": "2026-11-28T15:07:14.689Z", "assessmentId": "assessment-9a70a6b0b6700dda-28"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.689+00', '2026-11-28 15:07:14.704+00', 1, '\x35831c6569c3f30d89c581374fcb501f5397757a76d5efc657297420e4ba0ff8');
INSERT INTO public.events VALUES (42, '1ea7aef9-00c8-5268-adb9-d77c57f9d4f5', 'default', 'Content-content-9a70a6b0b6700dda-30', 1, 'ContentUploaded', '1.2.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-8", "fileUrl": "https://files.example/content-9a70a6b0b6700dda-30", "fileName": "notes", "fileSize": 4327152, "mimeType": "application/octet-stream", "contentId": "content-9a70a6b0b6700dda-30", "timestamp": "2026-11-28T15:07:14.694Z", "contentType": "audio"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.694+00', '2026-11-28 15:07:14.704+00', 1, '\xa8a0f0cb1e81f499d560042bbe5408c923b5e8412b46615bd9c3aa1ceaab0036');
INSERT INTO public.events VALUES (43, 'c127f304-b879-5f27-9b62-b7bf3e0ba957', 'default', 'LearningSession-session-9a70a6b0b6700dda-29', 1, 'LearningSessionStarted', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-6", "moduleId": "m1", "sessionId": "session-9a70a6b0b6700dda-29", "timestamp": "2026-11-28T15:07:14.693Z", "deviceInfo": {"os": "linux", "type": "phone"}, "learningPathId": "algebra"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.693+00', '2026-11-28 15:07:14.704+00', 1, '\x5b6460ce6a3897dfbd7ba2cf435895c188c5952f0e3ddd78423fee86f388f3fc');
INSERT INTO public.events VALUES (44, 'e6d5cc0b-ec26-592b-8b3a-5c29b378f53b', 'default', 'Assessment-assessment-9a70a6b0b6700dda-23', 1, 'AssessmentCompleted', '1.1.0', 'demo', '{"score": 70, "passed": true, "userId": "learner-9a70a6b0b6700dda-12", "maxScore": 100, "timeSpent": 292631, "timestamp": "2026-11-28T15:07:14.677Z", "assessmentId": "assessment-9a70a6b0b6700dda-23"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.677+00', '2026-11-28 15:07:14.704+00', 1, '\x8998fb70cd2f0960bc4fbfc1ec4cd3b88b74a895700eb3494f6098e6e29e1ac0');
INSERT INTO public.events VALUES (45, '93bf7f66-7fa2-5122-b4d9-b8e8d3a32b9c', 'default', 'LearningSession-session-9a70a6b0b6700dda-31', 1, 'LearningSessionStarted', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-13", "moduleId": "m1", "sessionId": "session-9a70a6b0b6700dda-31", "timestamp": "2026-11-28T15:07:14.695Z", "deviceInfo": {"os": "linux", "type": "laptop"}, "learningPathId": "biology"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.695+00', '2026-11-28 15:07:14.704+00', 1, '\xa7302fa16d411732da1faafa813a3773cb2e6c4416c3456db0d4e49db22f8b23');
INSERT INTO public.events VALUES (46, '31b462d8-e67b-503b-a9ba-da5861c4638b', 'default', 'LearningSession-session-9a70a6b0b6700dda-36', 1, 'LearningSessionStarted', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-12", "moduleId": "m1", "sessionId": "session-9a70a6b0b6700dda-36", "timestamp": "2026-11-28T15:07:14.698Z", "deviceInfo": {"os": "linux", "type": "phone"}, "learningPathId": "biology"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.698+00', '2026-11-28 15:07:14.704+00', 1, '\xbfdc4f3d33b05837e0731969f5ae4d5059a315dad01c90eaf9ccfa58cf8a9e13');
INSERT INTO public.events VALUES (47, '57d285d2-1715-5748-b035-4e8187dfaf8d', 'default', 'User-learner-9a70a6b0b6700dda-14', 1, 'UserRegistered', '1.0.0', 'demo', '{"email": "learner-9a70a6b0b6700dda-14@example.com", "userId": "learner-9a70a6b0b6700dda-14", "profile": {"lastName": "15", "firstName": "Learner", "preferences": {"timezone": "UTC"}}, "username": "learner-9a70a6b0b6700dda-14", "timestamp": "2026-11-28T15:07:14.699Z", "registrationSource": "demo"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.699+00', '2026-11-28 15:07:14.817+00', 1, '\x972e6774e99b32015bb8d566a664778f339d143a589b4119edf9703c08722def');
INSERT INTO public.events VALUES (48, '4644d640-19ce-5d7a-8389-ab333d9a8ee3', 'default', 'Assessment-assessment-9a70a6b0b6700dda-37', 1, 'AssessmentCompleted', '1.1.0', 'demo', '{"score": 45, "passed": true, "userId": "learner-9a70a6b0b6700dda-1", "maxScore": 100, "timeSpent": 1461954, "timestamp": "2026-11-28T15:07:14.702Z", "assessmentId": "assessment-9a70a6b0b6700dda-37"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.702+00', '2026-11-28 15:07:14.817+00', 1, '\x0132b6c0330d5cdd89f31db0ca31c904156bf594a0eb2604f95f9fee1644b556');
INSERT INTO public.events VALUES (49, 'ce6a59c7-68e9-55f4-9a5a-aa96271987f0', 'default', 'LearningSession-session-9a70a6b0b6700dda-38', 1, 'LearningSessionStarted', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-3", "moduleId": "m2", "sessionId": "session-9a70a6b0b6700dda-38", "timestamp": "2026-11-28T15:07:14.706Z", "deviceInfo": {"os": "linux", "type": "phone"}, "learningPathId": "biology"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.706+00', '2026-11-28 15:07:14.817+00', 1, '\x1fdaadd744bf688e327297335ee275a9f5d4010f6d4eb234e3f106f768374f59');
INSERT INTO public.events VALUES (50, 'cfb94948-f999-571b-ad8b-1ce30c0a9ccf', 'default', 'Assessment-assessment-9a70a6b0b6700dda-39', 1, 'AssessmentCompleted', '1.1.0', 'demo', '{"score": 49, "passed": true, "userId": "learner-9a70a6b0b6700dda-2", "maxScore": 100, "timeSpent": 3277657, "timestamp": "2026-11-28T15:07:14.706Z", "assessmentId": "assessment-9a70a6b0b6700dda-39"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.706+00', '2026-11-28 15:07:14.817+00', 1, '\xbbf3c85a27df10947f926199af647a362b8e4566a7999c763b3e01219b45b3d5');
INSERT INTO public.events VALUES (51, '732556f5-9000-533a-ae97-e1d260597bfd', 'default', 'Assessment-assessment-9a70a6b0b6700dda-40', 1, 'AssessmentCompleted', '1.1.0', 'demo', '{"score": 18, "passed": false, "userId": "learner-9a70a6b0b6700dda-13", "maxScore": 100, "timeSpent": 1263198, "timestamp": "2026-11-28T15:07:14.714Z", "assessmentId": "assessment-9a70a6b0b6700dda-40"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.714+00', '2026-11-28 15:07:14.817+00', 1, '\x194366aaf53d31b3607198094595a00271fd8b2a45157f4632df8dfebbd1a970');
INSERT INTO public.events VALUES (52, 'feb372cd-d288-5b56-81a1-aec4167d6812', 'default', 'LearningSession-session-9a70a6b0b6700dda-41', 1, 'LearningSessionStarted', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-13", "moduleId": "m2", "sessionId": "session-9a70a6b0b6700dda-41", "timestamp": "2026-11-28T15:07:14.714Z", "deviceInfo": {"os": "linux", "type": "laptop"}, "learningPathId": "history"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.714+00', '2026-11-28 15:07:14.817+00', 1, '\xd101a4afb574457e900a22b6bd5b693a939e1b2f30bcc82e0fcd41bd5b6d35a4');
INSERT INTO public.events VALUES (53, '479bda2d-760e-5c4e-854a-c5c999e0a321', 'default', 'User-learner-9a70a6b0b6700dda-15', 1, 'UserRegistered', '1.0.0', 'demo', '{"email": "learner-9a70a6b0b6700dda-15@example.com", "userId": "learner-9a70a6b0b6700dda-15", "profile": {"lastName": "16", "firstName": "Learner", "preferences": {"timezone": "UTC"}}, "username": "learner-9a70a6b0b6700dda-15", "timestamp": "2026-11-28T15:07:14.714Z", "registrationSource": "demo"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.714+00', '2026-11-28 15:07:14.817+00', 1, '\x69d2671b8f51b4f8ad5408b463ba87ce3e070f8d0208082671f6a7f4ac2930b8');
INSERT INTO public.events VALUES (54, '11e15b1c-3cba-5056-a448-7cf65fcdf3dc', 'default', 'LearningSession-session-9a70a6b0b6700dda-42', 1, 'LearningSessionStarted', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-10", "moduleId": "m1", "sessionId": "session-9a70a6b0b6700dda-42", "timestamp": "2026-11-28T15:07:14.714Z", "deviceInfo": {"os": "linux", "type": "laptop"}, "learningPathId": "history"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.714+00', '2026-11-28 15:07:14.817+00', 1, '\x2febee7b6a82888b0c296d6335c62b559bcca69d5fa72af363dd7d03366359ae');
INSERT INTO public.events VALUES (55, '6017ca01-b24e-52c1-b297-124cad102cf2', 'default', 'Assessment-assessment-9a70a6b0b6700dda-43', 1, 'AssessmentCompleted', '1.1.0', 'demo', '{"score": 85, "passed": true, "userId": "learner-9a70a6b0b6700dda-10", "maxScore": 100, "timeSpent": 1831615, "timestamp": "2026-11-28T15:07:14.717Z", "assessmentId": "assessment-9a70a6b0b6700dda-43"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.717+00', '2026-11-28 15:07:14.817+00', 1, '\x1719f221f9741ac7b65af7831da8e52e414e3da4641009ec8451ef59b89c3e79');
INSERT INTO public.events VALUES (56, '0d657fc0-715a-53a9-83ec-1c23361d9bfe', 'default', 'LearningSession-session-9a70a6b0b6700dda-44', 1, 'LearningSessionStarted', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-12", "moduleId": "m3", "sessionId": "session-9a70a6b0b6700dda-44", "timestamp": "2026-11-28T15:07:14.717Z", "deviceInfo": {"os": "linux", "type": "laptop"}, "learningPathId": "history"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.717+00', '2026-11-28 15:07:14.817+00', 1, '\x66a2be6d02e2099e8738c355bad2df629fff759cef37e5dbd1b3b7b9ff7753af');
INSERT INTO public.events VALUES (57, 'ac854ff4-0017-5cba-8a02-9abd1f90fe0f', 'default', 'Content-content-9a70a6b0b6700dda-46', 1, 'ContentUploaded', '1.2.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-7", "fileUrl": "https://files.example/content-9a70a6b0b6700dda-46", "fileName": "notes", "fileSize": 1331121, "mimeType": "application/octet-stream", "contentId": "content-9a70a6b0b6700dda-46", "timestamp": "2026-11-28T15:07:14.727Z", "contentType": "video"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.727+00', '2026-11-28 15:07:14.817+00', 1, '\x48b9d92db3a5f8450264f107a1d49ed70e91260a44c8df66743e53b3c0ab57ce');
INSERT INTO public.events VALUES (58, '1852985d-cdbc-5e8e-85d8-4b30903f4841', 'default', 'User-learner-9a70a6b0b6700dda-16', 1, 'UserRegistered', '1.0.0', 'demo', '{"email": "learner-9a70a6b0b6700dda-16@example.com", "userId": "learner-9a70a6b0b6700dda-16", "profile": {"lastName": "17", "firstName": "Learner", "preferences": {"timezone": "UTC"}}, "username": "learner-9a70a6b0b6700dda-16", "timestamp": "2026-11-28T15:07:14.727Z", "registrationSource": "demo"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.727+00', '2026-11-28 15:07:14.817+00', 1, '\x7c2da1fb5cc18f2512cc8f7382d02b72769fa2d85952a1d98f5d00dd35b2cf58');
INSERT INTO public.events VALUES (59, '4c3db0cb-c5dc-5d7e-b168-b1c41148d30b', 'default', 'LearningSession-session-9a70a6b0b6700dda-47', 1, 'LearningSessionStarted', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-4", "moduleId": "m1", "sessionId": "session-9a70a6b0b6700dda-47", "timestamp": "2026-11-28T15:07:14.727Z", "deviceInfo": {"os": "linux", "type": "laptop"}, "learningPathId": "history"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.727+00', '2026-11-28 15:07:14.817+00', 1, '\x375bcd45f1e185734d8cc5db302c1bfbd811109593360a9dcc94bcde4c18483b');
INSERT INTO public.events VALUES (60, 'addcbdd0-073c-5e5b-b1e8-1ad67708b40a', 'default', 'Task-task-9a70a6b0b6700dda-48', 1, 'TaskAssigned', '1.0.0', 'demo', '{"taskId": "task-9a70a6b0b6700dda-48", "agentId": "agent-6", "deadline": "2026-11-28T15:07:32.452Z", "priority": "normal", "taskType": "summarise", "agentType": "coordinator", "timestamp": "2026-11-28T15:07:14.727Z", "expectedDuration": 60000}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.727+00', '2026-11-28 15:07:14.817+00', 1, '\x4e3baea0b7f001d6f1fd95c49bf2431d311bfbe1a7c6f78deb37be5c208153ad');
INSERT INTO public.events VALUES (61, 'a718af60-9000-56ed-9590-29288b5618f3', 'default', 'Content-content-9a70a6b0b6700dda-45', 1, 'ContentUploaded', '1.2.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-6", "fileUrl": "https://files.example/content-9a70a6b0b6700dda-45", "fileName": "notes", "fileSize": 2921447, "mimeType": "application/octet-stream", "contentId": "content-9a70a6b0b6700dda-45", "timestamp": "2026-11-28T15:07:14.727Z", "contentType": "text"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.727+00', '2026-11-28 15:07:14.817+00', 1, '\x5a4a3c9ac6a1ea3ff0d89f23d54ad3b6a8eb26c1aca6c6dc904f4c0869c0f3c0');
INSERT INTO public.events VALUES (62, 'ce9c4e19-dbae-5b80-8955-d42b99184982', 'default', 'LearningSession-session-9a70a6b0b6700dda-49', 1, 'LearningSessionStarted', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-8", "moduleId": "m1", "sessionId": "session-9a70a6b0b6700dda-49", "timestamp": "2026-11-28T15:07:14.730Z", "deviceInfo": {"os": "linux", "type": "phone"}, "learningPathId": "biology"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.73+00', '2026-11-28 15:07:14.817+00', 1, '\x8ad31571426cb433850ceb8dd4d494da00056175b76a3d9f9c7b86810b78bc6d');
INSERT INTO public.events VALUES (63, 'dcf829b8-50db-5656-a8a7-3fd2dca29acb', 'default', 'User-learner-9a70a6b0b6700dda-4', 2, 'UserDeactivated', '1.0.0', 'demo', '{"reason": "demo", "userId": "learner-9a70a6b0b6700dda-4", "timestamp": "2026-11-28T15:07:14.731Z"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.731+00', '2026-11-28 15:07:14.817+00', 1, '\x5eedbe65a16711c814b071759f76ff814acafb59bc60cd95ba2733255be851c9');
INSERT INTO public.events VALUES (64, 'a52065e2-9ad7-512e-abc7-6bbc84513fdb', 'default', 'Assessment-assessment-9a70a6b0b6700dda-50', 1, 'AssessmentCompleted', '1.1.0', 'demo', '{"score": 32, "passed": false, "userId": "learner-9a70a6b0b6700dda-0", "maxScore": 100, "timeSpent": 633061, "timestamp": "2026-11-28T15:07:14.733Z", "assessmentId": "assessment-9a70a6b0b6700dda-50"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.733+00', '2026-11-28 15:07:14.817+00', 1, '\x4ee2063055406a61dc38ef7aa78af5c1d2e48bfbcf8897b6ddf648c588960571');
INSERT INTO public.events VALUES (65, '4ab78d19-2917-52af-9394-7a9c1e435c79', 'default', 'LearningSession-session-9a70a6b0b6700dda-51', 1, 'LearningSessionStarted', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-10", "moduleId": "m3", "sessionId": "session-9a70a6b0b6700dda-51", "timestamp": "2026-11-28T15:07:14.735Z", "deviceInfo": {"os": "linux", "type": "laptop"}, "learningPathId": "biology"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.735+00', '2026-11-28 15:07:14.817+00', 1, '\xe0a5eea79970ec858ee5915b3923be8e492a985e42c3f09438068885179ba483');
INSERT INTO public.events VALUES (66, '61d564cb-da21-57b3-84ca-72daee5246f0', 'default', 'User-learner-9a70a6b0b6700dda-9', 2, 'UserDeactivated', '1.0.0', 'demo', '{"reason": "demo", "userId": "learner-9a70a6b0b6700dda-9", "timestamp": "2026-11-28T15:07:14.737Z"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.737+00', '2026-11-28 15:07:14.817+00', 1, '\xfec2a86808212f1a0467ccfd0e7e349d9d5827a0fb22e6fb51dd6516bb00d30c');
INSERT INTO public.events VALUES (67, '92cbe19d-aafe-5180-84bb-018f03e35a8a', 'default', 'Assessment-assessment-9a70a6b0b6700dda-52', 1, 'AssessmentCompleted', '1.1.0', 'demo', '{"score": 20, "passed": false, "userId": "learner-9a70a6b0b6700dda-3", "maxScore": 100, "timeSpent": 1661162, "timestamp": "2026-11-28T15:07:14.740Z", "assessmentId": "assessment-9a70a6b0b6700dda-52"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.74+00', '2026-11-28 15:07:14.817+00', 1, '\x894cd75c96e464bfbbefa64f07ada8a6c712d0f784ec8b5eabadf629b1a2523f');
INSERT INTO public.events VALUES (68, '2639d59c-1bdd-53fb-8214-ab3369a5a0f6', 'default', 'Assessment-assessment-9a70a6b0b6700dda-53', 1, 'AssessmentCompleted', '1.1.0', 'demo', '{"score": 0, "passed": false, "userId": "learner-9a70a6b0b6700dda-3", "maxScore": 100, "timeSpent": 3137109, "timestamp": "2026-11-28T15:07:14.741Z", "assessmentId": "assessment-9a70a6b0b6700dda-53"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.741+00', '2026-11-28 15:07:14.817+00', 1, '\x1772722d0aada516a2cdc51558a4a11897e3bf3dec7b649e54ddabbdade47cb1');
INSERT INTO public.events VALUES (69, 'd89e66cd-db3e-55de-be63-45289a1bf8a6', 'default', 'LearningSession-session-9a70a6b0b6700dda-55', 1, 'LearningSessionStarted', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-3", "moduleId": "m3", "sessionId": "session-9a70a6b0b6700dda-55", "timestamp": "2026-11-28T15:07:14.745Z", "deviceInfo": {"os": "linux", "type": "laptop"}, "learningPathId": "history"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.745+00', '2026-11-28 15:07:14.817+00', 1, '\xa178e5d45376330d081e4aa861e87a558f5133f39b17d6f1986f2a17bf43cfbf');
INSERT INTO public.events VALUES (70, 'e4da2908-2563-50e0-947b-8c5ead957c2d', 'default', 'Task-task-9a70a6b0b6700dda-54', 1, 'TaskAssigned', '1.0.0', 'demo', '{"taskId": "task-9a70a6b0b6700dda-54", "agentId": "agent-1", "priority": "high", "taskType": "summarise", "agentType": "researcher", "timestamp": "2026-11-28T15:07:14.745Z", "expectedDuration": 60000}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.745+00', '2026-11-28 15:07:14.817+00', 1, '\x3beec32460080a8f13286a6ff7b27e7b4769fa6a5e8718f8b1ba361690397db0');
INSERT INTO public.events VALUES (71, 'c1f51804-f642-5190-b0df-f46c21aedcd8', 'default', 'Task-task-9a70a6b0b6700dda-56', 1, 'TaskAssigned', '1.0.0', 'demo', '{"taskId": "task-9a70a6b0b6700dda-56", "agentId": "agent-6", "priority": "low", "taskType": "summarise", "agentType": "coordinator", "timestamp": "2026-11-28T15:07:14.747Z", "expectedDuration": 60000}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.747+00', '2026-11-28 15:07:14.817+00', 1, '\x5ec8ab76f0306b223d5a0849230fdbae8ed56714824064183d6a52a9199d6b5e');
INSERT INTO public.events VALUES (72, 'a64eb017-b50f-5d79-9cbc-914ae9d6f3ce', 'default', 'LearningSession-session-9a70a6b0b6700dda-57', 1, 'LearningSessionStarted', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-13", "moduleId": "m2", "sessionId": "session-9a70a6b0b6700dda-57", "timestamp": "2026-11-28T15:07:14.750Z", "deviceInfo": {"os": "linux", "type": "phone"}, "learningPathId": "biology"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.75+00', '2026-11-28 15:07:14.817+00', 1, '\xba91eba48e8ec3c4f80f3369fcd6c691eb25b668cac374b90651e0729c51364e');
INSERT INTO public.events VALUES (73, 'b6bb48ad-7e39-5cae-9867-62e70d4e9107', 'default', 'LearningSession-session-9a70a6b0b6700dda-58', 1, 'LearningSessionStarted', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-1", "moduleId": "m2", "sessionId": "session-9a70a6b0b6700dda-58", "timestamp": "2026-11-28T15:07:14.751Z", "deviceInfo": {"os": "linux", "type": "phone"}, "learningPathId": "history"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.751+00', '2026-11-28 15:07:14.817+00', 1, '\xe2910b97f7368343ad2775cab45163d2603fb6ed562c49e4b51603d337d656b2');
INSERT INTO public.events VALUES (74, 'b223b4a7-c674-5634-b7ec-bf2bdac83a80', 'default', 'LearningSession-session-9a70a6b0b6700dda-59', 1, 'LearningSessionStarted', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-16", "moduleId": "m2", "sessionId": "session-9a70a6b0b6700dda-59", "timestamp": "2026-11-28T15:07:14.753Z", "deviceInfo": {"os": "linux", "type": "phone"}, "learningPathId": "algebra"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.753+00', '2026-11-28 15:07:14.817+00', 1, '\xea9f9fc3036c18741534e11efccfde2d6e2c30da0176268013b50e99e360801f');
INSERT INTO public.events VALUES (75, '6e2be6a6-9ed7-540a-b656-481833b3482c', 'default', 'User-learner-9a70a6b0b6700dda-2', 2, 'UserProfileUpdated', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-2", "newValues": {"language": "de"}, "timestamp": "2026-11-28T15:07:14.755Z", "changedFields": ["language"], "previousValues": {}}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.755+00', '2026-11-28 15:07:14.817+00', 1, '\x8f4ab256b98bc7e9b0cebfe2f74a6e2d74f1efb02609ca4c9bce440e41707569');
INSERT INTO public.events VALUES (76, '39b8310b-85b3-596d-8f9e-1bfdf2d4c0f3', 'default', 'User-learner-9a70a6b0b6700dda-17', 1, 'UserRegistered', '1.0.0', 'demo', '{"email": "learner-9a70a6b0b6700dda-17@example.com", "userId": "learner-9a70a6b0b6700dda-17", "profile": {"lastName": "18", "firstName": "Learner", "preferences": {"timezone": "UTC"}}, "username": "learner-9a70a6b0b6700dda-17", "timestamp": "2026-11-28T15:07:14.757Z", "registrationSource": "demo"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.757+00', '2026-11-28 15:07:14.817+00', 1, '\xcc39ab93ac531801bed2790f18e8bd67bcd1e1ecad8c9cace00befaafc0a7e80');
INSERT INTO public.events VALUES (77, '07303652-a27c-5abc-a1e7-6ae4a199c332', 'default', 'LearningSession-session-9a70a6b0b6700dda-60', 1, 'LearningSessionStarted', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-2", "moduleId": "m3", "sessionId": "session-9a70a6b0b6700dda-60", "timestamp": "2026-11-28T15:07:14.759Z", "deviceInfo": {"os": "linux", "type": "laptop"}, "learningPathId": "algebra"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.759+00', '2026-11-28 15:07:14.817+00', 1, '\x142d0557dd488f37d839db4c502718ad727feae31a506bfb458e7b4c99bfca4e');
INSERT INTO public.events VALUES (78, 'd54097fe-1307-5505-9255-c26cdf4277bb', 'default', 'LearningSession-session-9a70a6b0b6700dda-61', 1, 'LearningSessionStarted', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-3", "moduleId": "m3", "sessionId": "session-9a70a6b0b6700dda-61", "timestamp": "2026-11-28T15:07:14.761Z", "deviceInfo": {"os": "linux", "type": "phone"}, "learningPathId": "biology"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.761+00', '2026-11-28 15:07:14.817+00', 1, '\xb18c80aaf0b2ef15b10c2c7d9261451089fe5a7779350923cdb56d6878cf9ef4');
INSERT INTO public.events VALUES (79, '1decd695-06da-5346-8624-3ecee6342009', 'default', 'User-learner-9a70a6b0b6700dda-18', 1, 'UserRegistered', '1.0.0', 'demo', '{"email": "learner-9a70a6b0b6700dda-18@example.com", "userId": "learner-9a70a6b0b6700dda-18", "profile": {"lastName": "19", "firstName": "Learner", "preferences": {"timezone": "UTC"}}, "username": "learner-9a70a6b0b6700dda-18", "timestamp": "2026-11-28T15:07:14.763Z", "registrationSource": "demo"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.763+00', '2026-11-28 15:07:14.817+00', 1, '\x262e534aa4a03524c8e1da578eb4c1acb8b5dc664c3fa09046e59e37e25a21d4');
INSERT INTO public.events VALUES (80, '04b6b8b9-1f9e-541f-8a97-c965fd1aa3d4', 'default', 'LearningSession-session-9a70a6b0b6700dda-62', 1, 'LearningSessionStarted', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-10", "moduleId": "m1", "sessionId": "session-9a70a6b0b6700dda-62", "timestamp": "2026-11-28T15:07:14.765Z", "deviceInfo": {"os": "linux", "type": "phone"}, "learningPathId": "algebra"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.765+00', '2026-11-28 15:07:14.817+00', 1, '\x0df6f227bc52ab54a78e3dab43e67b8b6f8021c9d776bdfd0a0e05b8aff90f56');
INSERT INTO public.events VALUES (81, '34a1c46d-959c-5fa9-87fe-16d95aba6c21', 'default', 'LearningSession-session-9a70a6b0b6700dda-63', 1, 'LearningSessionStarted', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-16", "moduleId": "m3", "sessionId": "session-9a70a6b0b6700dda-63", "timestamp": "2026-11-28T15:07:14.767Z", "deviceInfo": {"os": "linux", "type": "laptop"}, "learningPathId": "biology"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.767+00', '2026-11-28 15:07:14.817+00', 1, '\x25183c8221ab49aa4b57da635b0c92b12a79c5a86f61916dca3792ff3754cb1e');
INSERT INTO public.events VALUES (82, '830f06ee-9ebe-5d75-b5e6-de1189900703', 'default', 'LearningSession-session-9a70a6b0b6700dda-64', 1, 'LearningSessionStarted', '1.0.0', 'demo', '{"userId": "learner-9a70a6b0b6700dda-17", "moduleId": "m2", "sessionId": "session-9a70a6b0b6700dda-64", "timestamp": "2026-11-28T15:07:14.769Z", "deviceInfo": {"os": "linux", "type": "phone"}, "learningPathId": "history"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.769+00', '2026-11-28 15:07:14.817+00', 1, '\x6d925114cda89c7183508b9a8ae528d230d53e9464b5677713eb6dcb7bb4eb9c');
INSERT INTO public.events VALUES (83, '6d92a47b-b290-5f53-95ee-5fce4c33c455', 'default', 'User-learner-9a70a6b0b6700dda-19', 1, 'UserRegistered', '1.0.0', 'demo', '{"email": "learner-9a70a6b0b6700dda-19@example.com", "userId": "learner-9a70a6b0b6700dda-19", "profile": {"lastName": "20", "firstName": "Learner", "preferences": {"timezone": "UTC"}}, "username": "learner-9a70a6b0b6700dda-19", "timestamp": "2026-11-28T15:07:14.771Z", "registrationSource": "demo"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.771+00', '2026-11-28 15:07:14.817+00', 1, '\x1c9649034b5ed2865b394709d796af6bc4624feb78c08d6aeb0e30ae684d7166');
INSERT INTO public.events VALUES (84, 'a804ac74-78e6-5571-94ce-7211b28d70ea', 'default', 'Assessment-assessment-9a70a6b0b6700dda-65', 1, 'AssessmentCompleted', '1.1.0', 'demo', '{"score": 75, "passed": true, "userId": "learner-9a70a6b0b6700dda-17", "maxScore": 100, "timeSpent": 3313572, "timestamp": "2026-11-28T15:07:14.773Z", "assessmentId": "assessment-9a70a6b0b6700dda-65"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.773+00', '2026-11-28 15:07:14.817+00', 1, '\x85b56221131027e76f82be97ab3d0cc5ea33d9399b47b8fc7a379ff5e5fea86f');
INSERT INTO public.events VALUES (85, '79ba4001-3532-5cea-b510-8b9d085d7ae0', 'default', 'Task-task-9a70a6b0b6700dda-66', 1, 'TaskAssigned', '1.0.0', 'demo', '{"taskId": "task-9a70a6b0b6700dda-66", "agentId": "agent-0", "deadline": "2026-11-28T15:07:19.856Z", "priority": "critical", "taskType": "summarise", "agentType": "reviewer", "timestamp": "2026-11-28T15:07:14.776Z", "expectedDuration": 60000}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.776+00', '2026-11-28 15:07:14.817+00', 1, '\x3ddc6dccf151b5bb93740f8af393677f2fb93196ed296d7d2eab9e064e8690bd');
INSERT INTO public.events VALUES (86, '9eaaa981-ee59-5320-9134-ed314344250d', 'default', 'Assessment-assessment-9a70a6b0b6700dda-67', 1, 'AssessmentCompleted', '1.1.0', 'demo', '{"score": 37, "passed": false, "userId": "learner-9a70a6b0b6700dda-4", "maxScore": 100, "timeSpent": 3486692, "timestamp": "2026-11-28T15:07:14.778Z", "assessmentId": "assessment-9a70a6b0b6700dda-67"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.778+00', '2026-11-28 15:07:14.817+00', 1, '\x5f943fa96dfc0663c195389bdc6a4321354e1a3eedca1cf7648d4336b31751d8');
INSERT INTO public.events VALUES (87, '53898768-6836-5c8d-8a9a-ce069c85d58a', 'default', 'Task-task-9a70a6b0b6700dda-68', 1, 'TaskAssigned', '1.0.0', 'demo', '{"taskId": "task-9a70a6b0b6700dda-68", "agentId": "agent-0", "deadline": "2026-11-28T15:07:23.972Z", "priority": "critical", "taskType": "summarise", "agentType": "reviewer", "timestamp": "2026-11-28T15:07:14.780Z", "expectedDuration": 60000}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.78+00', '2026-11-28 15:07:14.817+00', 1, '\xeca1cbfafa68404527fcf458581f09d7b327b3cb6685681f21cb01c13087c13b');
INSERT INTO public.events VALUES (88, '765d961a-0ce5-56de-bf44-0795dfbf5dc7', 'default', 'Assessment-assessment-9a70a6b0b6700dda-69', 1, 'AssessmentCompleted', '1.1.0', 'demo', '{"score": 45, "passed": true, "userId": "learner-9a70a6b0b6700dda-19", "maxScore": 100, "timeSpent": 2928028, "timestamp": "2026-11-28T15:07:14.782Z", "assessmentId": "assessment-9a70a6b0b6700dda-69"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.782+00', '2026-11-28 15:07:14.817+00', 1, '\xd54840f0ae4b5a3412926a2851891b352d8eb2e0d820153e9b670bf670435d55');
INSERT INTO public.events VALUES (89, '3dc0087f-098a-5f75-8227-4fef20d4b50d', 'default', 'Task-task-9a70a6b0b6700dda-70', 1, 'TaskAssigned', '1.0.0', 'demo', '{"taskId": "task-9a70a6b0b6700dda-70", "agentId": "agent-2", "deadline": "2026-11-28T15:07:34.665Z", "priority": "critical", "taskType": "summarise", "agentType": "creator", "timestamp": "2026-11-28T15:07:14.784Z", "expectedDuration": 60000}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.784+00', '2026-11-28 15:07:14.817+00', 1, '\x328cf3ebd2a91019650cf44d038e6b90e17d21920d0a0ae680334d1fe8d9f8fe');
INSERT INTO public.events VALUES (90, 'cf8a1bed-5415-5f45-96d0-726e333421a7', 'default', 'User-learner-9a70a6b0b6700dda-2', 3, 'UserRegistered', '1.0.0', 'demo', '{"email": "learner-9a70a6b0b6700dda-2@example.com", "userId": "learner-9a70a6b0b6700dda-2", "profile": {"lastName": "3", "firstName": "Learner", "preferences": {"timezone": "UTC"}}, "username": "learner-9a70a6b0b6700dda-2", "timestamp": "2026-11-28T15:07:14.613Z", "registrationSource": "demo"}', '{"correlationId": "demo-9a70a6b0b6700dda"}', '2026-11-28 15:07:14.613+00', '2026-11-28 15:07:14.842+00', 1, '\x09f83db66f0d2b9f92ccc0114309870231e6642c6129ba250a1220566e2bc01c');
INSERT INTO public.learner_learning_paths VALUES ('default', 'learner-9a70a6b0b6700dda-0', 'biology');
INSERT INTO public.learner_learning_paths VALUES ('default', 'learner-9a70a6b0b6700dda-1', 'history');
INSERT INTO public.learner_learning_paths VALUES ('default', 'learner-9a70a6b0b6700dda-10', 'algebra');
INSERT INTO public.learner_learning_paths VALUES ('default', 'learner-9a70a6b0b6700dda-10', 'biology');
INSERT INTO public.learner_learning_paths VALUES ('default', 'learner-9a70a6b0b6700dda-10', 'history');
INSERT INTO public.learner_learning_paths VALUES ('default', 'learner-9a70a6b0b6700dda-12', 'biology');
INSERT INTO public.learner_learning_paths VALUES ('default', 'learner-9a70a6b0b6700dda-12', 'history');
INSERT INTO public.learner_learning_paths VALUES ('default', 'learner-9a70a6b0b6700dda-13', 'biology');
INSERT INTO public.learner_learning_paths VALUES ('default', 'learner-9a70a6b0b6700dda-13', 'history');
INSERT INTO public.learner_learning_paths VALUES ('default', 'learner-9a70a6b0b6700dda-16', 'algebra');
INSERT INTO public.learner_learning_paths VALUES ('default', 'learner-9a70a6b0b6700dda-16', 'biology');
INSERT INTO public.learner_learning_paths VALUES ('default', 'learner-9a70a6b0b6700dda-17', 'history');
INSERT INTO public.learner_learning_paths VALUES ('default', 'learner-9a70a6b0b6700dda-2', 'algebra');
INSERT INTO public.learner_learning_paths VALUES ('default', 'learner-9a70a6b0b6700dda-2', 'history');
INSERT INTO public.learner_learning_paths VALUES ('default', 'learner-9a70a6b0b6700dda-3', 'biology');
INSERT INTO public.learner_learning_paths VALUES ('default', 'learner-9a70a6b0b6700dda-3', 'history');
INSERT INTO public.learner_learning_paths VALUES ('default', 'learner-9a70a6b0b6700dda-4', 'history');
INSERT INTO public.learner_learning_paths VALUES ('default', 'learner-9a70a6b0b6700dda-5', 'algebra');
INSERT INTO public.learner_learning_paths VALUES ('default', 'learner-9a70a6b0b6700dda-6', 'algebra');
INSERT INTO public.learner_learning_paths VALUES ('default', 'learner-9a70a6b0b6700dda-7', 'algebra');
INSERT INTO public.learner_learning_paths VALUES ('default', 'learner-9a70a6b0b6700dda-8', 'biology');
INSERT INTO public.learner_learning_paths VALUES ('default', 'learner-9a70a6b0b6700dda-9', 'algebra');
INSERT INTO public.learner_progress_read_model VALUES ('default', 'learner-9a70a6b0b6700dda-9', 1, 1, 1, 0, 35.000000, DEFAULT, 2519.632000, '2026-11-28 15:07:14.687+00');
INSERT INTO public.learner_progress_read_model VALUES ('default', 'learner-9a70a6b0b6700dda-7', 1, 1, 1, 1, 59.000000, DEFAULT, 1327.142000, '2026-11-28 15:07:14.653+00');
INSERT INTO public.learner_progress_read_model VALUES ('default', 'learner-9a70a6b0b6700dda-12', 2, 2, 3, 2, 137.000000, DEFAULT, 1550.033000, '2026-11-28 15:07:14.717+00');
INSERT INTO public.learner_progress_read_model VALUES ('default', 'learner-9a70a6b0b6700dda-1', 1, 1, 1, 1, 45.000000, DEFAULT, 1461.954000, '2026-11-28 15:07:14.751+00');
INSERT INTO public.learner_progress_read_model VALUES ('default', 'learner-9a70a6b0b6700dda-5', 1, 1, 0, 0, 0.000000, DEFAULT, 0.000000, '2026-11-28 15:07:14.645+00');
INSERT INTO public.learner_progress_read_model VALUES ('default', 'learner-9a70a6b0b6700dda-10', 3, 3, 3, 2, 178.000000, DEFAULT, 2245.549000, '2026-11-28 15:07:14.765+00');
INSERT INTO public.learner_progress_read_model VALUES ('default', 'learner-9a70a6b0b6700dda-0', 1, 1, 1, 0, 32.000000, DEFAULT, 633.061000, '2026-11-28 15:07:14.733+00');
INSERT INTO public.learner_progress_read_model VALUES ('default', 'learner-9a70a6b0b6700dda-3', 3, 2, 2, 0, 20.000000, DEFAULT, 4798.271000, '2026-11-28 15:07:14.761+00');
INSERT INTO public.learner_progress_read_model VALUES ('default', 'learner-9a70a6b0b6700dda-6', 3, 1, 1, 1, 44.000000, DEFAULT, 2711.451000, '2026-11-28 15:07:14.693+00');
INSERT INTO public.learner_progress_read_model VALUES ('default', 'learner-9a70a6b0b6700dda-2', 2, 2, 3, 2, 168.000000, DEFAULT, 7050.443000, '2026-11-28 15:07:14.759+00');
INSERT INTO public.learner_progress_read_model VALUES ('default', 'learner-9a70a6b0b6700dda-17', 1, 1, 1, 1, 75.000000, DEFAULT, 3313.572000, '2026-11-28 15:07:14.773+00');
INSERT INTO public.learner_progress_read_model VALUES ('default', 'learner-9a70a6b0b6700dda-13', 3, 2, 1, 0, 18.000000, DEFAULT, 1263.198000, '2026-11-28 15:07:14.75+00');
INSERT INTO public.learner_progress_read_model VALUES ('default', 'learner-9a70a6b0b6700dda-8', 1, 1, 2, 1, 71.000000, DEFAULT, 3114.885000, '2026-11-28 15:07:14.73+00');
INSERT INTO public.learner_progress_read_model VALUES ('default', 'learner-9a70a6b0b6700dda-16', 2, 2, 0, 0, 0.000000, DEFAULT, 0.000000, '2026-11-28 15:07:14.767+00');
INSERT INTO public.learner_progress_read_model VALUES ('default', 'learner-9a70a6b0b6700dda-4', 1, 1, 2, 1, 120.000000, DEFAULT, 4590.009000, '2026-11-28 15:07:14.778+00');
INSERT INTO public.learner_progress_read_model VALUES ('default', 'learner-9a70a6b0b6700dda-19', 0, 0, 1, 1, 45.000000, DEFAULT, 2928.028000, '2026-11-28 15:07:14.782+00');
INSERT INTO public.learner_progress_read_model VALUES ('default', 'learner-9a70a6b0b6700dda-11', 0, 0, 2, 1, 89.000000, DEFAULT, 3106.130000, '2026-11-28 15:07:14.669+00');
INSERT INTO public.learning_session_read_model VALUES ('session-9a70a6b0b6700dda-11', 'default', 'learner-9a70a6b0b6700dda-6', 'algebra', 'm3', '{"os": "linux", "type": "phone"}', '2026-11-28 15:07:14.65+00', 1);
INSERT INTO public.learning_session_read_model VALUES ('session-9a70a6b0b6700dda-14', 'default', 'learner-9a70a6b0b6700dda-9', 'algebra', 'm1', '{"os": "linux", "type": "phone"}', '2026-11-28 15:07:14.655+00', 1);
INSERT INTO public.learning_session_read_model VALUES ('session-9a70a6b0b6700dda-17', 'default', 'learner-9a70a6b0b6700dda-0', 'biology', 'm1', '{"os": "linux", "type": "phone"}', '2026-11-28 15:07:14.665+00', 1);
INSERT INTO public.learning_session_read_model VALUES ('session-9a70a6b0b6700dda-18', 'default', 'learner-9a70a6b0b6700dda-2', 'history', 'm1', '{"os": "linux", "type": "phone"}', '2026-11-28 15:07:14.667+00', 1);
INSERT INTO public.learning_session_read_model VALUES ('session-9a70a6b0b6700dda-25', 'default', 'learner-9a70a6b0b6700dda-6', 'algebra', 'm3', '{"os": "linux", "type": "phone"}', '2026-11-28 15:07:14.683+00', 1);
INSERT INTO public.learning_session_read_model VALUES ('session-9a70a6b0b6700dda-29', 'default', 'learner-9a70a6b0b6700dda-6', 'algebra', 'm1', '{"os": "linux", "type": "phone"}', '2026-11-28 15:07:14.693+00', 1);
INSERT INTO public.learning_session_read_model VALUES ('session-9a70a6b0b6700dda-31', 'default', 'learner-9a70a6b0b6700dda-13', 'biology', 'm1', '{"os": "linux", "type": "laptop"}', '2026-11-28 15:07:14.695+00', 1);
INSERT INTO public.learning_session_read_model VALUES ('session-9a70a6b0b6700dda-36', 'default', 'learner-9a70a6b0b6700dda-12', 'biology', 'm1', '{"os": "linux", "type": "phone"}', '2026-11-28 15:07:14.698+00', 1);
INSERT INTO public.learning_session_read_model VALUES ('session-9a70a6b0b6700dda-38', 'default', 'learner-9a70a6b0b6700dda-3', 'biology', 'm2', '{"os": "linux", "type": "phone"}', '2026-11-28 15:07:14.706+00', 1);
INSERT INTO public.learning_session_read_model VALUES ('session-9a70a6b0b6700dda-41', 'default', 'learner-9a70a6b0b6700dda-13', 'history', 'm2', '{"os": "linux", "type": "laptop"}', '2026-11-28 15:07:14.714+00', 1);
INSERT INTO public.learning_session_read_model VALUES ('session-9a70a6b0b6700dda-42', 'default', 'learner-9a70a6b0b6700dda-10', 'history', 'm1', '{"os": "linux", "type": "laptop"}', '2026-11-28 15:07:14.714+00', 1);
INSERT INTO public.learning_session_read_model VALUES ('session-9a70a6b0b6700dda-44', 'default', 'learner-9a70a6b0b6700dda-12', 'history', 'm3', '{"os": "linux", "type": "laptop"}', '2026-11-28 15:07:14.717+00', 1);
INSERT INTO public.learning_session_read_model VALUES ('session-9a70a6b0b6700dda-47', 'default', 'learner-9a70a6b0b6700dda-4', 'history', 'm1', '{"os": "linux", "type": "laptop"}', '2026-11-28 15:07:14.727+00', 1);
INSERT INTO public.learning_session_read_model VALUES ('session-9a70a6b0b6700dda-49', 'default', 'learner-9a70a6b0b6700dda-8', 'biology', 'm1', '{"os": "linux", "type": "phone"}', '2026-11-28 15:07:14.73+00', 1);
INSERT INTO public.learning_session_read_model VALUES ('session-9a70a6b0b6700dda-51', 'default', 'learner-9a70a6b0b6700dda-10', 'biology', 'm3', '{"os": "linux", "type": "laptop"}', '2026-11-28 15:07:14.735+00', 1);
INSERT INTO public.learning_session_read_model VALUES ('session-9a70a6b0b6700dda-55', 'default', 'learner-9a70a6b0b6700dda-3', 'history', 'm3', '{"os": "linux", "type": "laptop"}', '2026-11-28 15:07:14.745+00', 1);
INSERT INTO public.learning_session_read_model VALUES ('session-9a70a6b0b6700dda-57', 'default', 'learner-9a70a6b0b6700dda-13', 'biology', 'm2', '{"os": "linux", "type": "phone"}', '2026-11-28 15:07:14.75+00', 1);
INSERT INTO public.learning_session_read_model VALUES ('session-9a70a6b0b6700dda-58', 'default', 'learner-9a70a6b0b6700dda-1', 'history', 'm2', '{"os": "linux", "type": "phone"}', '2026-11-28 15:07:14.751+00', 1);
INSERT INTO public.learning_session_read_model VALUES ('session-9a70a6b0b6700dda-59', 'default', 'learner-9a70a6b0b6700dda-16', 'algebra', 'm2', '{"os": "linux", "type": "phone"}', '2026-11-28 15:07:14.753+00', 1);
INSERT INTO public.learning_session_read_model VALUES ('session-9a70a6b0b6700dda-60', 'default', 'learner-9a70a6b0b6700dda-2', 'algebra', 'm3', '{"os": "linux", "type": "laptop"}', '2026-11-28 15:07:14.759+00', 1);
INSERT INTO public.learning_session_read_model VALUES ('session-9a70a6b0b6700dda-61', 'default', 'learner-9a70a6b0b6700dda-3', 'biology', 'm3', '{"os": "linux", "type": "phone"}', '2026-11-28 15:07:14.761+00', 1);
INSERT INTO public.learning_session_read_model VALUES ('session-9a70a6b0b6700dda-62', 'default', 'learner-9a70a6b0b6700dda-10', 'algebra', 'm1', '{"os": "linux", "type": "phone"}', '2026-11-28 15:07:14.765+00', 1);
INSERT INTO public.learning_session_read_model VALUES ('session-9a70a6b0b6700dda-63', 'default', 'learner-9a70a6b0b6700dda-16', 'biology', 'm3', '{"os": "linux", "type": "laptop"}', '2026-11-28 15:07:14.767+00', 1);
INSERT INTO public.learning_session_read_model VALUES ('session-9a70a6b0b6700dda-64', 'default', 'learner-9a70a6b0b6700dda-17', 'history', 'm2', '{"os": "linux", "type": "phone"}', '2026-11-28 15:07:14.769+00', 1);
INSERT INTO public.learning_session_read_model VALUES ('session-9a70a6b0b6700dda-8', 'default', 'learner-9a70a6b0b6700dda-5', 'algebra', 'm2', '{"os": "linux", "type": "phone"}', '2026-11-28 15:07:14.645+00', 1);
INSERT INTO public.learning_session_read_model VALUES ('session-9a70a6b0b6700dda-9', 'default', 'learner-9a70a6b0b6700dda-7', 'algebra', 'm3', '{"os": "linux", "type": "phone"}', '2026-11-28 15:07:14.645+00', 1);
INSERT INTO public.ledger VALUES ('read-models', '080738ca-59ed-4269-bb56-fbd4ec8964e9', 'events', 0, 91, 2, '8309-01a222b5-4306-7269-b473-3dac8aeb0fa1', '2026-11-28 15:10:34.278366+00', '2026-11-28 15:07:14.880288+00', NULL, 90);
INSERT INTO public.ledger VALUES ('metrics', '080738ca-59ed-4269-bb56-fbd4ec8964e9', 'events', 0, 91, 2, '8309-01a222b5-4306-7269-b473-3dac8aeb0fa1', '2026-11-28 15:10:34.288268+00', '2026-11-28 15:07:15.661132+00', NULL, 90);
INSERT INTO public.metric_counters VALUES ('content_uploads_total', 'audio', 2);
INSERT INTO public.metric_counters VALUES ('content_uploads_total', 'image', 2);
INSERT INTO public.metric_counters VALUES ('content_uploads_total', 'text', 1);
INSERT INTO public.metric_counters VALUES ('content_uploads_total', 'video', 1);
INSERT INTO public.metric_counters VALUES ('events_applied_total', 'AssessmentCompleted', 25);
INSERT INTO public.metric_counters VALUES ('events_applied_total', 'ContentUploaded', 6);
INSERT INTO public.metric_counters VALUES ('events_applied_total', 'LearningSessionStarted', 26);
INSERT INTO public.metric_counters VALUES ('events_applied_total', 'TaskAssigned', 9);
INSERT INTO public.metric_counters VALUES ('events_applied_total', 'UserDeactivated', 2);
INSERT INTO public.metric_counters VALUES ('events_applied_total', 'UserProfileUpdated', 2);
INSERT INTO public.metric_counters VALUES ('events_applied_total', 'UserRegistered', 20);
INSERT INTO public.metric_counters VALUES ('learning_sessions_started_total', '', 26);
INSERT INTO public.metric_counters VALUES ('users_registered_total', '', 20);
INSERT INTO public.refinery_schema_history VALUES (1, 'event_store', '2026-11-28T15:07:14.459630498Z', '11248515455107710710');
INSERT INTO public.refinery_schema_history VALUES (2, 'lanes', '2026-11-28T15:07:14.480944079Z', '11952011626562587031');
INSERT INTO public.refinery_schema_history VALUES (3, 'read_models', '2026-11-28T15:07:14.491871808Z', '18384991399978244944');
INSERT INTO public.refinery_schema_history VALUES (4, 'metrics', '2026-11-28T15:07:14.524286273Z', '7893676536060094697');
INSERT INTO public.refinery_schema_history VALUES (5, 'access', '2026-11-28T15:07:14.534046492Z', '12635141051015656487');
INSERT INTO public.refinery_schema_history VALUES (6, 'jobs', '2026-11-28T15:07:14.545146053Z', '13751403646215802178');
INSERT INTO public.refinery_schema_history VALUES (7, 'index_by_type', '2026-11-28T15:07:14.553192397Z', '957497875983855660');
INSERT INTO public.refinery_schema_history VALUES (8, 'kafka', '2026-11-28T15:07:14.556661304Z', '4085908806514761224');
INSERT INTO public.refinery_schema_history VALUES (9, 'repeats', '2026-11-28T15:07:14.561897136Z', '16604695619549421596');
INSERT INTO public.user_read_model VALUES ('learner-9a70a6b0b6700dda-0', 'default', 'learner-9a70a6b0b6700dda-0@example.com', 'learner-9a70a6b0b6700dda-0', 'Learner', '1', 'active', '{"timezone": "UTC"}', 'demo', '2026-11-28 15:07:14.613+00', '2026-11-28 15:07:14.613+00', NULL, 1);
INSERT INTO public.user_read_model VALUES ('learner-9a70a6b0b6700dda-1', 'default', 'learner-9a70a6b0b6700dda-1@example.com', 'learner-9a70a6b0b6700dda-1', 'Learner', '2', 'active', '{"timezone": "UTC"}', 'demo', '2026-11-28 15:07:14.612+00', '2026-11-28 15:07:14.612+00', NULL, 1);
INSERT INTO public.user_read_model VALUES ('learner-9a70a6b0b6700dda-10', 'default', 'learner-9a70a6b0b6700dda-10@example.com', 'learner-9a70a6b0b6700dda-10', 'Learner', '11', 'active', '{"timezone": "UTC"}', 'demo', '2026-11-28 15:07:14.638+00', '2026-11-28 15:07:14.638+00', NULL, 1);
INSERT INTO public.user_read_model VALUES ('learner-9a70a6b0b6700dda-11', 'default', 'learner-9a70a6b0b6700dda-11@example.com', 'learner-9a70a6b0b6700dda-11', 'Learner', '12', 'active', '{"timezone": "UTC"}', 'demo', '2026-11-28 15:07:14.658+00', '2026-11-28 15:07:14.658+00', NULL, 1);
INSERT INTO public.user_read_model VALUES ('learner-9a70a6b0b6700dda-12', 'default', 'learner-9a70a6b0b6700dda-12@example.com', 'learner-9a70a6b0b6700dda-12', 'Learner', '13', 'active', '{"timezone": "UTC"}', 'demo', '2026-11-28 15:07:14.661+00', '2026-11-28 15:07:14.661+00', NULL, 1);
INSERT INTO public.user_read_model VALUES ('learner-9a70a6b0b6700dda-13', 'default', 'learner-9a70a6b0b6700dda-13@example.com', 'learner-9a70a6b0b6700dda-13', 'Learner', '14', 'active', '{"timezone": "UTC"}', 'demo', '2026-11-28 15:07:14.679+00', '2026-11-28 15:07:14.679+00', NULL, 1);
INSERT INTO public.user_read_model VALUES ('learner-9a70a6b0b6700dda-14', 'default', 'learner-9a70a6b0b6700dda-14@example.com', 'learner-9a70a6b0b6700dda-14', 'Learner', '15', 'active', '{"timezone": "UTC"}', 'demo', '2026-11-28 15:07:14.699+00', '2026-11-28 15:07:14.699+00', NULL, 1);
INSERT INTO public.user_read_model VALUES ('learner-9a70a6b0b6700dda-15', 'default', 'learner-9a70a6b0b6700dda-15@example.com', 'learner-9a70a6b0b6700dda-15', 'Learner', '16', 'active', '{"timezone": "UTC"}', 'demo', '2026-11-28 15:07:14.714+00', '2026-11-28 15:07:14.714+00', NULL, 1);
INSERT INTO public.user_read_model VALUES ('learner-9a70a6b0b6700dda-16', 'default', 'learner-9a70a6b0b6700dda-16@example.com', 'learner-9a70a6b0b6700dda-16', 'Learner', '17', 'active', '{"timezone": "UTC"}', 'demo', '2026-11-28 15:07:14.727+00', '2026-11-28 15:07:14.727+00', NULL, 1);
INSERT INTO public.user_read_model VALUES ('learner-9a70a6b0b6700dda-17', 'default', 'learner-9a70a6b0b6700dda-17@example.com', 'learner-9a70a6b0b6700dda-17', 'Learner', '18', 'active', '{"timezone": "UTC"}', 'demo', '2026-11-28 15:07:14.757+00', '2026-11-28 15:07:14.757+00', NULL, 1);
INSERT INTO public.user_read_model VALUES ('learner-9a70a6b0b6700dda-18', 'default', 'learner-9a70a6b0b6700dda-18@example.com', 'learner-9a70a6b0b6700dda-18', 'Learner', '19', 'active', '{"timezone": "UTC"}', 'demo', '2026-11-28 15:07:14.763+00', '2026-11-28 15:07:14.763+00', NULL, 1);
INSERT INTO public.user_read_model VALUES ('learner-9a70a6b0b6700dda-19', 'default', 'learner-9a70a6b0b6700dda-19@example.com', 'learner-9a70a6b0b6700dda-19', 'Learner', '20', 'active', '{"timezone": "UTC"}', 'demo', '2026-11-28 15:07:14.771+00', '2026-11-28 15:07:14.771+00', NULL, 1);
INSERT INTO public.user_read_model VALUES ('learner-9a70a6b0b6700dda-2', 'default', 'learner-9a70a6b0b6700dda-2@example.com', 'learner-9a70a6b0b6700dda-2', 'Learner', '3', 'active', '{"language": "de", "timezone": "UTC"}', 'demo', '2026-11-28 15:07:14.613+00', '2026-11-28 15:07:14.613+00', NULL, 3);
INSERT INTO public.user_read_model VALUES ('learner-9a70a6b0b6700dda-3', 'default', 'learner-9a70a6b0b6700dda-3@example.com', 'learner-9a70a6b0b6700dda-3', 'Learner', '4', 'active', '{"timezone": "UTC"}', 'demo', '2026-11-28 15:07:14.613+00', '2026-11-28 15:07:14.613+00', NULL, 1);
INSERT INTO public.user_read_model VALUES ('learner-9a70a6b0b6700dda-4', 'default', 'learner-9a70a6b0b6700dda-4@example.com', 'learner-9a70a6b0b6700dda-4', 'Learner', '5', 'deactivated', '{"timezone": "UTC"}', 'demo', '2026-11-28 15:07:14.613+00', '2026-11-28 15:07:14.731+00', '2026-11-28 15:07:14.731+00', 2);
INSERT INTO public.user_read_model VALUES ('learner-9a70a6b0b6700dda-5', 'default', 'learner-9a70a6b0b6700dda-5@example.com', 'learner-9a70a6b0b6700dda-5', 'Learner', '6', 'active', '{"timezone": "UTC"}', 'demo', '2026-11-28 15:07:14.616+00', '2026-11-28 15:07:14.616+00', NULL, 1);
INSERT INTO public.user_read_model VALUES ('learner-9a70a6b0b6700dda-6', 'default', 'learner-9a70a6b0b6700dda-6@example.com', 'learner-9a70a6b0b6700dda-6', 'Learner', '7', 'active', '{"timezone": "UTC"}', 'demo', '2026-11-28 15:07:14.617+00', '2026-11-28 15:07:14.617+00', NULL, 1);
INSERT INTO public.user_read_model VALUES ('learner-9a70a6b0b6700dda-7', 'default', 'learner-9a70a6b0b6700dda-7@example.com', 'learner-9a70a6b0b6700dda-7', 'Learner', '8', 'active', '{"timezone": "UTC"}', 'demo', '2026-11-28 15:07:14.62+00', '2026-11-28 15:07:14.62+00', NULL, 1);
INSERT INTO public.user_read_model VALUES ('learner-9a70a6b0b6700dda-8', 'default', 'learner-9a70a6b0b6700dda-8@example.com', 'learner-9a70a6b0b6700dda-8', 'Learner', '9', 'active', '{"timezone": "UTC"}', 'demo', '2026-11-28 15:07:14.621+00', '2026-11-28 15:07:14.621+00', NULL, 1);
INSERT INTO public.user_read_model VALUES ('learner-9a70a6b0b6700dda-9', 'default', 'learner-9a70a6b0b6700dda-9@example.com', 'learner-9a70a6b0b6700dda-9', 'Learner', '10', 'deactivated', '{"timezone": "UTC"}', 'demo', '2026-11-28 15:07:14.623+00', '2026-11-28 15:07:14.737+00', '2026-11-28 15:07:14.737+00', 2);
SELECT pg_catalog.setval('public.dead_letters_id_seq', 1, false);
SELECT pg_catalog.setval('public.job_runs_id_seq', 1, false);
ALTER TABLE ONLY public.api_tokens
    ADD CONSTRAINT api_tokens_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.assessment_read_model
    ADD CONSTRAINT assessment_read_model_pkey PRIMARY KEY (tenant, id);
ALTER TABLE ONLY public.dead_letters
    ADD CONSTRAINT dead_letters_lane_source_topic_partition_offset_key UNIQUE (lane, source, topic, partition, "offset");
ALTER TABLE ONLY public.dead_letters
    ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.event_store
    ADD CONSTRAINT event_store_pkey PRIMARY KEY (only_row);
ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_event_id_key UNIQUE (event_id);
ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_tenant_stream_id_version_key UNIQUE (tenant, stream_id, version);
ALTER TABLE ONLY public.job_runs
    ADD CONSTRAINT job_runs_job_due_at_key UNIQUE (job, due_at);
ALTER TABLE ONLY public.job_runs
    ADD CONSTRAINT job_runs_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.learner_learning_paths
    ADD CONSTRAINT learner_learning_paths_pkey PRIMARY KEY (tenant, user_id, learning_path_id);
ALTER TABLE ONLY public.learner_progress_read_model
    ADD CONSTRAINT learner_progress_read_model_pkey PRIMARY KEY (tenant, user_id);
ALTER TABLE ONLY public.learning_session_read_model
    ADD CONSTRAINT learning_session_read_model_pkey PRIMARY KEY (tenant, id);
ALTER TABLE ONLY public.ledger
    ADD CONSTRAINT ledger_pkey PRIMARY KEY (lane, source, topic, partition);
ALTER TABLE ONLY public.metric_counters
    ADD CONSTRAINT metric_counters_pkey PRIMARY KEY (name, label);
ALTER TABLE ONLY public.metric_histogram_buckets
    ADD CONSTRAINT metric_histogram_buckets_pkey PRIMARY KEY (name, bucket);
ALTER TABLE ONLY public.publisher
    ADD CONSTRAINT publisher_pkey PRIMARY KEY (source);
ALTER TABLE ONLY public.refinery_schema_history
    ADD CONSTRAINT refinery_schema_history_pkey PRIMARY KEY (version);
ALTER TABLE ONLY public.repeats
    ADD CONSTRAINT repeats_pkey PRIMARY KEY (lane, source, topic, partition, "offset");
ALTER TABLE ONLY public.seen
    ADD CONSTRAINT seen_pkey PRIMARY KEY (lane, tenant, event_id);
ALTER TABLE ONLY public.snapshots
    ADD CONSTRAINT snapshots_pkey PRIMARY KEY (tenant, stream_id);
ALTER TABLE ONLY public.user_read_model
    ADD CONSTRAINT user_read_model_pkey PRIMARY KEY (tenant, id);
CREATE INDEX assessment_read_model_by_user ON public.assessment_read_model USING btree (tenant, user_id, completed_at);
CREATE INDEX dead_letters_by_key ON public.dead_letters USING btree (lane, source, topic, partition, key, "offset") WHERE decodable;
CREATE INDEX dead_letters_to_mirror ON public.dead_letters USING btree (id) WHERE ((state = 'dead'::text) AND (mirrored_at IS NULL));
CREATE INDEX idx_events_timestamp ON public.events USING brin ("timestamp");
CREATE INDEX idx_events_type ON public.events USING btree (event_type, tenant, id);
CREATE INDEX job_runs_by_job ON public.job_runs USING btree (job, id DESC);
CREATE INDEX learning_session_read_model_by_user ON public.learning_session_read_model USING btree (tenant, user_id, started_at);
CREATE INDEX seen_by_age ON public.seen USING brin (seen_at);
GRANT USAGE ON SCHEMA public TO weir_reader;
GRANT SELECT ON TABLE public.assessment_read_model TO weir_reader;
GRANT SELECT ON TABLE public.dead_letters TO weir_reader;
GRANT SELECT ON TABLE public.event_store TO weir_reader;
GRANT SELECT ON TABLE public.events TO weir_reader;
GRANT SELECT ON TABLE public.job_runs TO weir_reader;
GRANT SELECT ON TABLE public.learner_learning_paths TO weir_reader;
GRANT SELECT ON TABLE public.learner_progress_read_model TO weir_reader;
GRANT SELECT ON TABLE public.learning_session_read_model TO weir_reader;
GRANT SELECT ON TABLE public.ledger TO weir_reader;
GRANT SELECT ON TABLE public.metric_counters TO weir_reader;
GRANT SELECT ON TABLE public.metric_histogram_buckets TO weir_reader;
GRANT SELECT ON TABLE public.publisher TO weir_reader;
GRANT SELECT ON TABLE public.repeats TO weir_reader;
GRANT SELECT ON TABLE public.seen TO weir_reader;
GRANT SELECT ON TABLE public.snapshots TO weir_reader;
GRANT SELECT ON TABLE public.user_read_model TO weir_reader;
