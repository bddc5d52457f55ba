-- Progress of every lane: the arbiter of "exactly once".

CREATE TABLE ledger (
    lane text NOT NULL,
    source text NOT NULL,           -- where offsets mean something: the event store's UUID, or Kafka's cluster and topic id
    topic text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint,             -- everything below is in the sink or a dead letter; NULL before the first commit
    epoch bigint NOT NULL,          -- raised by each claim; a commit with an older one is refused
    owner text NOT NULL,            -- the process that claimed last, for people
    claimed_at timestamptz NOT NULL DEFAULT now(),
    advanced_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (lane, source, topic, partition)
);

-- Records that a lane could not apply, whole. state:
--   parked  failed and is tried again at retry_at, or waits behind an earlier record of its key
--   dead    given up; later records of its key wait behind it until it is redriven
--   redrive someone asked for another try; the lane's owner takes it up
CREATE TABLE dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lane text NOT NULL,
    source text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    key text,
    state text NOT NULL CHECK (state IN ('parked', 'dead', 'redrive')),
    decodable boolean NOT NULL,     -- false: no event at all; such a record holds nothing up
    event_type text,
    reason text NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    retry_at timestamptz,
    headers jsonb NOT NULL DEFAULT '{}',
    payload bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (lane, source, topic, partition, "offset")
);
CREATE INDEX dead_letters_by_key ON dead_letters (lane, source, topic, partition, key, "offset") WHERE decodable;
