-- The publisher's side: who publishes, and a lower bound of how far; the truth is in Kafka, with the events.
CREATE TABLE publisher (
    source uuid PRIMARY KEY,                -- the event store
    position bigint NOT NULL DEFAULT 0,     -- everything up to here is in the topics, and perhaps more
    event_id text,                          -- of the event at that position
    -- The position is where the topics begin, by `weir source switch kafka`; nothing has been published yet.
    switched boolean NOT NULL DEFAULT false,
    epoch bigint NOT NULL DEFAULT 0,        -- raised by whoever begins to publish; a note with an older one is refused
    owner text NOT NULL DEFAULT '',         -- the process, for people
    seen_at timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT ON publisher TO weir_reader;

-- A row that is retired is history: its source is read by this lane no more, and what it says stays true.
ALTER TABLE ledger ADD COLUMN retired_at timestamptz;
