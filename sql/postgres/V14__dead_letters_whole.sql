-- Dead letters keep key and headers as the bytes that they were, and say whose event it is and what it is about: a parked key is a
-- tenant's, and another tenant's events of the same key do not wait behind it.
ALTER TABLE dead_letters
    ADD COLUMN key_bytes bytea,
    ADD COLUMN header_bytes bytea,      -- names and values in turn, each behind its length in four bytes, the highest first
    ADD COLUMN tenant text,
    ADD COLUMN aggregate_type text,
    ADD COLUMN aggregate_id text;

-- Of before there are bytes of no key and no header. Without a tenant a parked key is every tenant's.
DO $migration$
DECLARE
    letter record;
    document json;
BEGIN
    FOR letter IN SELECT id, payload FROM dead_letters WHERE decodable LOOP
        BEGIN
            document := convert_from(letter.payload, 'UTF8')::json;
            UPDATE dead_letters
            SET tenant = coalesce(document #>> '{metadata,tenantId}', 'default'),
                aggregate_type = document ->> 'aggregateType',
                aggregate_id = document ->> 'aggregateId'
            WHERE id = letter.id;
        EXCEPTION WHEN OTHERS THEN
            RAISE NOTICE 'dead letter %: %', letter.id, SQLERRM;
        END;
    END LOOP;
END
$migration$;

DROP INDEX dead_letters_by_key;
CREATE INDEX dead_letters_by_key ON dead_letters (lane, source, topic, partition, key, tenant, "offset") WHERE decodable;
