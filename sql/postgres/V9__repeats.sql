-- Other services may send an event twice. Each lane remembers their event ids for a while, and what it left out as a repeat for
-- ever: both are written with the batch. Events of ours carry their position, and cannot come twice.
CREATE TABLE seen (
    lane text NOT NULL,
    tenant text NOT NULL,
    event_id text NOT NULL,
    source text NOT NULL,
    topic text NOT NULL,
    partition int NOT NULL,
    "offset" bigint NOT NULL,               -- where it was first
    seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (lane, tenant, event_id)
);
CREATE INDEX seen_by_age ON seen USING brin (seen_at);

CREATE TABLE repeats (
    lane text NOT NULL,
    source text NOT NULL,
    topic text NOT NULL,
    partition int NOT NULL,
    "offset" bigint NOT NULL,               -- of the record that was left out
    tenant text NOT NULL,
    event_id text NOT NULL,
    noticed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (lane, source, topic, partition, "offset")
);
-- The last event of the event store that this lane has of this partition: whoever wrote an event can wait for it.
ALTER TABLE ledger ADD COLUMN position bigint;

-- When a copy went to the topic's own topic of dead letters, for those who watch that.
ALTER TABLE dead_letters ADD COLUMN mirrored_at timestamptz;
CREATE INDEX dead_letters_to_mirror ON dead_letters (id) WHERE state = 'dead' AND mirrored_at IS NULL;

GRANT SELECT ON seen, repeats TO weir_reader;
