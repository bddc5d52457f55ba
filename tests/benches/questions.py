"""Asks what comes on standard input, a JSON text a line, and prints rows and seconds of each. Arguments: `duckdb` and the history table, or
`postgres` and an address; the first line holds the views of event types."""

import json
import sys
import time

views = json.loads(sys.stdin.readline())
if sys.argv[1] == "duckdb":
    from duckdb_history import opened

    db = opened(sys.argv[2], views)
    ask = lambda sql: db.execute(sql).fetchall()
else:
    import psycopg

    db = psycopg.connect(sys.argv[2], autocommit=True)
    ask = lambda sql: db.execute(sql).fetchall()
print("ready", flush=True)
for line in sys.stdin:
    began = time.monotonic()
    rows = len(ask(json.loads(line)))
    print(rows, time.monotonic() - began, flush=True)
