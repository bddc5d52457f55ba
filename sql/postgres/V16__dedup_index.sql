-- One index of the log in place of a memory for each lane: which records of other services came before. pipeline/postgres/README.md has
-- the rule, pipeline/postgres/src/dedup the code.

-- Processes of an older build wait, and are refused afterwards. A memory of many ids takes its time.
SET LOCAL statement_timeout = 0;
LOCK TABLE ledger, seen, repeats IN EXCLUSIVE MODE;

-- Who indexes holds this row.
CREATE TABLE dedup (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    key bytea NOT NULL,                     -- of the fingerprints: no sender knows it
    next_number bigint NOT NULL DEFAULT 0,  -- of the next record of the log
    generation bigint NOT NULL DEFAULT 0    -- another one when the set of runs changes
);
INSERT INTO dedup (key) VALUES (uuid_send(gen_random_uuid()));

-- Stretches of partitions that are in the index. Their records have the numbers from `number` on, in the order in which stretches were
-- committed. One that does not cover is a single record that was counted later than those around it.
CREATE TABLE dedup_spans (
    number bigint PRIMARY KEY,
    source text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    start_offset bigint NOT NULL,
    end_offset bigint NOT NULL,
    covers boolean NOT NULL DEFAULT true,
    indexed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX dedup_spans_by_place ON dedup_spans (source, topic, partition, start_offset) WHERE covers;

-- Counted events, by fingerprint: sorted runs of blocks. An entry is sixteen bytes of fingerprint and eight of number.
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
    ADD COLUMN first_number bigint,         -- of the copy that was counted, and where that is
    ADD COLUMN first_source text,
    ADD COLUMN first_topic text,
    ADD COLUMN first_partition integer,
    ADD COLUMN first_offset bigint,
    ADD COLUMN is_counted boolean NOT NULL DEFAULT false;
CREATE INDEX repeats_by_event ON repeats (tenant, event_id);

-- Everything up to the last id that any lane noticed is in the index.
INSERT INTO dedup_spans (number, source, topic, partition, start_offset, end_offset)
SELECT -row_number() OVER (ORDER BY source, topic, partition), source, topic, partition, 0, max("offset") + 1
FROM (SELECT source, topic, partition, "offset" FROM seen UNION ALL SELECT source, topic, partition, "offset" FROM repeats) n
GROUP BY source, topic, partition;

-- Of copies that lanes chose differently the one that most of them counted stands in the index. What is remembered is numbered one after the
-- other, so that all of it is within the window.
CREATE TEMP TABLE chosen AS
SELECT row_number() OVER (ORDER BY seen_at, tenant, event_id) - 1 AS number, c.*
FROM (SELECT DISTINCT ON (tenant, event_id) tenant, event_id, source, topic, partition, "offset", seen_at
      FROM (SELECT tenant, event_id, source, topic, partition, "offset", count(*) AS lanes, min(seen_at) AS seen_at FROM seen
            GROUP BY tenant, event_id, source, topic, partition, "offset") s
      ORDER BY tenant, event_id, lanes DESC, topic, partition, source, "offset") c;
CREATE INDEX ON chosen (tenant, event_id);
INSERT INTO dedup_spans (number, source, topic, partition, start_offset, end_offset, covers, indexed_at)
SELECT number, source, topic, partition, "offset", "offset" + 1, false, seen_at FROM chosen;
UPDATE dedup SET next_number = (SELECT count(*) FROM chosen);

-- Every other copy is a repeat for all lanes, but for those that chose it, which leave out the index's choice instead.
INSERT INTO repeats (lane, source, topic, partition, "offset", tenant, event_id, first_number, first_source, first_topic, first_partition,
    first_offset)
SELECT '', n.source, n.topic, n.partition, n."offset", n.tenant, n.event_id, c.number, c.source, c.topic, c.partition, c."offset"
FROM (SELECT source, topic, partition, "offset", tenant, event_id FROM seen
      UNION SELECT source, topic, partition, "offset", tenant, event_id FROM repeats) n
LEFT JOIN chosen c USING (tenant, event_id)
WHERE (c.source, c.topic, c.partition, c."offset") IS DISTINCT FROM (n.source, n.topic, n.partition, n."offset")
ON CONFLICT DO NOTHING;
DELETE FROM repeats r USING repeats every WHERE r.lane <> '' AND every.lane = '' AND every.source = r.source AND every.topic = r.topic
    AND every.partition = r.partition AND every."offset" = r."offset";
INSERT INTO repeats (lane, source, topic, partition, "offset", tenant, event_id, is_counted)
SELECT s.lane, p.source, p.topic, p.partition, p."offset", s.tenant, s.event_id, p.is_counted
FROM seen s JOIN chosen c USING (tenant, event_id)
CROSS JOIN LATERAL (VALUES (s.source, s.topic, s.partition, s."offset", true), (c.source, c.topic, c.partition, c."offset", false))
    AS p(source, topic, partition, "offset", is_counted)
WHERE (c.source, c.topic, c.partition, c."offset") <> (s.source, s.topic, s.partition, s."offset")
ON CONFLICT DO NOTHING;

-- The fingerprints, as `dedup/candidate.rs` makes them, in one run; the first process that indexes makes its filter.
WITH entries AS (
    SELECT substr(sha256(d.key || int4send(octet_length(c.tenant)) || convert_to(c.tenant, 'UTF8') || convert_to(c.event_id, 'UTF8')), 1, 16)
               AS fingerprint, c.number
    FROM chosen c CROSS JOIN dedup d
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
