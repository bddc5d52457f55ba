-- With the tenant first, this index looked good for finding a stream while the statistics were young, and read all of a
-- tenant's events. With the type first it serves questions by type only.
CREATE INDEX idx_events_type_tenant ON events (event_type, tenant, id);
DROP INDEX idx_events_type;
ALTER INDEX idx_events_type_tenant RENAME TO idx_events_type;
