"""History in DuckDB: the views that questions read, and functions by the names that ClickHouse has for them."""

import glob
import os

import duckdb
import duckdb_extension_delta


def opened(history, views):
    """A connection whose `events` and views of event types are those of `weir sql`."""
    folder = os.path.dirname(duckdb_extension_delta.__file__)
    db = duckdb.connect()
    db.execute("LOAD '%s'" % glob.glob(folder + "/extensions/*/delta.duckdb_extension")[0])
    db.execute("SET TimeZone = 'UTC'")
    db.execute("CREATE VIEW events AS SELECT * REPLACE (coalesce(user_id, actor_id) AS user_id) FROM delta_scan('%s')" % history)
    db.execute("CREATE MACRO toUnixTimestamp64Milli(t) AS epoch_ms(t)")
    db.execute("CREATE MACRO JSONExtractFloat(j, k) AS coalesce(TRY_CAST(json_extract_string(j, '$.' || k) AS DOUBLE), 0)")
    for view, kind in views:
        db.execute("CREATE VIEW %s AS SELECT * FROM events WHERE event_type = '%s'" % (view, kind))
    return db
