-- One index of the log in place of a memory for each lane: which records of other services came before. pipeline/postgres/README.md has
-- the rule, pipeline/postgres/src/dedup the code.

-- Whoever indexes holds this row.
CREATE TABLE dedup (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    key bytea NOT NULL,                     -- of the fingerprints: no sender knows it
    next_number bigint NOT NULL DEFAULT 0,  -- of the next record of the log
    generation bigint NOT NULL DEFAULT 0    -- raised when the set of runs changes
);
INSERT INTO dedup (key) VALUES (uuid_send(gen_random_uuid()));

-- Stretches of partitions that are in the index. Their records have the numbers from `number` on, in the order in which stretches were
-- committed.
CREATE TABLE dedup_spans (
    number bigint PRIMARY KEY,
    source text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    start_offset bigint NOT NULL,
    end_offset bigint NOT NULL,
    indexed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX dedup_spans_by_place ON dedup_spans (source, topic, partition, end_offset);

-- Counted events, by fingerprint: sorted runs of blocks. An entry is sixteen bytes of fingerprint and eight of number.
CREATE SEQUENCE dedup_run;
CREATE TABLE dedup_runs (
    run bigint PRIMARY KEY,
    level integer NOT NULL,
    entries bigint NOT NULL,
    newest bigint NOT NULL,                 -- its highest number
    fences bytea,                           -- the first fingerprint of each block; NULL with the filter
    filter bytea
);
CREATE TABLE dedup_blocks (
    run bigint NOT NULL,
    block integer NOT NULL,
    entries bytea NOT NULL,
    PRIMARY KEY (run, block)
);
-- Random bytes: nothing to compress, and below the size from which they would be stored elsewhere.
ALTER TABLE dedup_blocks ALTER COLUMN entries SET STORAGE PLAIN;

-- What a lane never read, since it began behind it or was reset past it: places in there are no copies for it.
CREATE TABLE lane_skips (
    lane text NOT NULL,
    source text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    from_offset bigint NOT NULL,
    to_offset bigint NOT NULL,
    PRIMARY KEY (lane, source, topic, partition, from_offset)
);

-- Rows of the lane '' are every lane's. A lane's own say otherwise: what it alone left out, or counts all the same.
ALTER TABLE repeats
    ADD COLUMN number bigint,
    ADD COLUMN first_number bigint,         -- of the copy that was counted
    ADD COLUMN is_counted boolean NOT NULL DEFAULT false;
CREATE INDEX repeats_by_event ON repeats (tenant, event_id);

-- Everything up to the last id that any lane noticed is in the index, as one stretch of each partition.
INSERT INTO dedup_spans (number, source, topic, partition, start_offset, end_offset)
SELECT sum(length) OVER (ORDER BY source, topic, partition) - length, source, topic, partition, 0, length
FROM (SELECT source, topic, partition, max("offset") + 1 AS length
      FROM (SELECT source, topic, partition, "offset" FROM seen UNION ALL SELECT source, topic, partition, "offset" FROM repeats) n
      GROUP BY source, topic, partition) p;
UPDATE dedup SET next_number = coalesce((SELECT max(number + end_offset - start_offset) FROM dedup_spans), 0);

-- Of copies that lanes chose differently the one that most of them counted stands in the index.
CREATE TEMP TABLE chosen AS
SELECT DISTINCT ON (tenant, event_id) tenant, event_id, source, topic, partition, "offset"
FROM (SELECT tenant, event_id, source, topic, partition, "offset", count(*) AS lanes FROM seen
      GROUP BY tenant, event_id, source, topic, partition, "offset") c
ORDER BY tenant, event_id, lanes DESC, topic, partition, source, "offset";

-- A lane that is behind others has not come to all of this yet. What it will leave out there: whatever is not its own choice or, where it
-- has made none, the index's.
INSERT INTO repeats (lane, source, topic, partition, "offset", tenant, event_id)
SELECT DISTINCT l.lane, n.source, n.topic, n.partition, n."offset", n.tenant, n.event_id
FROM (SELECT source, topic, partition, "offset", tenant, event_id FROM seen
      UNION SELECT source, topic, partition, "offset", tenant, event_id FROM repeats) n
JOIN ledger l ON l.source = n.source AND l.topic = n.topic AND l.partition = n.partition
    AND n."offset" >= coalesce(l.next_offset, 0)
JOIN chosen c ON c.tenant = n.tenant AND c.event_id = n.event_id
LEFT JOIN seen s ON s.lane = l.lane AND s.tenant = n.tenant AND s.event_id = n.event_id
WHERE CASE WHEN s.lane IS NULL THEN (c.source, c.topic, c.partition, c."offset") <> (n.source, n.topic, n.partition, n."offset")
           ELSE (s.source, s.topic, s.partition, s."offset") <> (n.source, n.topic, n.partition, n."offset") END
ON CONFLICT DO NOTHING;

-- The fingerprints, as `dedup/candidate.rs` makes them, in one run; the first process that indexes makes its filter.
WITH entries AS (
    SELECT substr(sha256(d.key || int4send(octet_length(c.tenant)) || convert_to(c.tenant, 'UTF8') || convert_to(c.event_id, 'UTF8')), 1, 16)
               AS fingerprint,
           s.number + c."offset" - s.start_offset AS number
    FROM chosen c CROSS JOIN dedup d
    JOIN dedup_spans s ON s.source = c.source AND s.topic = c.topic AND s.partition = c.partition
), numbered AS (
    SELECT fingerprint, number, (row_number() OVER (ORDER BY fingerprint) - 1) / 80 AS block FROM entries
), blocks AS (
    INSERT INTO dedup_blocks (run, block, entries)
    SELECT 0, block, string_agg(fingerprint || int8send(number), ''::bytea ORDER BY fingerprint) FROM numbered GROUP BY block
)
INSERT INTO dedup_runs (run, level, entries, newest)
SELECT 0, 1, count(*), max(number) FROM entries HAVING count(*) > 0;

DROP TABLE chosen, seen;

GRANT SELECT ON dedup_spans, dedup_runs, lane_skips TO weir_reader;
