-- Rollups of ClickHouse are computed beside the inserts, not before each one is in the ledger: everything below `rolled_up` is counted in
-- them. NULL where that was never said: then they go as far as the ledger, as they did before, and in lanes without rollups.
ALTER TABLE ledger ADD COLUMN rolled_up bigint;
