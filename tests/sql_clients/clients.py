"""Drivers of Python against SQL over history: each prints what it saw as JSON, for the test to compare."""

import asyncio
import json
import ssl
import sys
import threading
import time

import asyncpg
import psycopg
import sqlalchemy

ENDLESS = "SELECT count(*) FROM generate_series(1, 10000000) a CROSS JOIN generate_series(1, 10000000) b"


def of_psycopg(url):
    seen = {}
    with psycopg.connect(url, autocommit=True) as connection:
        one = lambda *asked: connection.execute(*asked).fetchone()
        seen["events"] = one("SELECT count(*) FROM events")[0]
        seen["tenants"] = [row[0] for row in connection.execute("SELECT DISTINCT tenant FROM events ORDER BY 1")]
        # Parameters are bound by the server, as text and in binary.
        seen["passed"] = one("SELECT count(*) FROM assessment_completed WHERE passed = %s AND score >= %b", (True, 40.0))[0]
        row = one("SELECT event_id, \"offset\", score, passed, timestamp FROM assessment_completed ORDER BY \"offset\" LIMIT 1")
        seen["types"] = [type(value).__name__ for value in row]
        for _ in range(7):
            prepared = one("SELECT count(*) FROM events WHERE event_type = %s", ("UserRegistered",))[0]
        seen["prepared"] = prepared
        with connection.transaction(), connection.cursor(name="rows") as cursor:
            cursor.execute("SELECT event_id FROM events ORDER BY event_id")
            seen["cursor"] = len(cursor.fetchmany(10)) + len(cursor.fetchall())
        with connection.cursor().copy("COPY (SELECT event_id, tenant FROM events) TO STDOUT") as copy:
            seen["copied"] = sum(1 for _ in copy.rows())
        wrong = [
            "SELECT * FROM evnets",
            "SELECT tennant FROM events",
            "SELEC 1",
            "INSERT INTO events SELECT * FROM events",
            "CREATE TABLE t AS SELECT 1",
            "COPY (SELECT 1) TO '/tmp/weir-no-such-file'",
            "CREATE EXTERNAL TABLE p STORED AS CSV LOCATION '/etc/passwd'",
            "SET datafusion.runtime.memory_limit = '100G'",
            "SET \"datafusion.runtime.memory_limit\" = '100G'",
            "SELECT 1/0",
            "SELECT array_agg(value) FROM generate_series(1, 100000000)",
        ]
        seen["errors"] = []
        for sql in wrong:
            try:
                connection.execute(sql).fetchall()
                seen["errors"].append([sql, None, None])
            except psycopg.Error as error:
                words = f"{error.diag.message_primary} {error.diag.message_hint or ''}"
                seen["errors"].append([sql, error.sqlstate, words])
        began = time.monotonic()
        threading.Timer(0.5, connection.cancel).start()
        try:
            connection.execute(ENDLESS).fetchall()
        except psycopg.errors.QueryCanceled:
            seen["cancelled"] = time.monotonic() - began < 20
        connection.execute("SET statement_timeout = 300")
        try:
            connection.execute(ENDLESS).fetchall()
        except psycopg.errors.QueryCanceled as error:
            seen["timeout"] = str(error)
        connection.execute("SET statement_timeout = 0")
        seen["freshness"] = [row[0] for row in connection.execute("SELECT lane FROM freshness ORDER BY 1")]
        plan = "\n".join(row[-1] for row in connection.execute("EXPLAIN ANALYZE SELECT count(*) FROM events"))
        seen["plan"] = "metrics=" in plan
    return seen


async def of_asyncpg(url):
    unchecked = ssl.create_default_context()
    unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
    connection = await asyncpg.connect(url.split("?")[0], ssl=unchecked)
    seen = {"events": await connection.fetchval("SELECT count(*) FROM events")}
    statement = await connection.prepare("SELECT count(*) FROM events WHERE event_type = $1")
    seen["prepared"] = await statement.fetchval("UserRegistered")
    async with connection.transaction():
        seen["rows"] = len([row async for row in connection.cursor("SELECT event_id FROM events", prefetch=50)])
    copied = bytearray()

    async def take(data):
        copied.extend(data)

    await connection.copy_from_query("SELECT event_id FROM events", output=take, format="csv")
    seen["copied"] = copied.count(b"\n")
    await connection.reset()
    await connection.close()
    return seen


def of_sqlalchemy(url):
    engine = sqlalchemy.create_engine(url.replace("postgres://", "postgresql+psycopg://"))
    inspector = sqlalchemy.inspect(engine)
    tables = set(inspector.get_table_names()) | set(inspector.get_view_names())
    table = sqlalchemy.table("assessment_completed", sqlalchemy.column("passed"), sqlalchemy.column("score"))
    with engine.connect() as connection:
        passed = connection.execute(sqlalchemy.select(sqlalchemy.func.count()).select_from(table).where(table.c.passed)).scalar()
        streamed = connection.execution_options(stream_results=True).execute(sqlalchemy.select(table.c.score).where(table.c.passed))
        scores = [row.score for row in streamed]
    # As tools do that show a table before anything is asked of it.
    events = sqlalchemy.Table("events", sqlalchemy.MetaData(), autoload_with=engine)
    types = {name: str(events.c[name].type) for name in ("event_id", "score", "passed", "timestamp", "offset")}
    return {
        "tables": sorted(tables),
        "passed": passed,
        "streamed": len(scores),
        "has": inspector.has_table("events"),
        "types": types,
        "keys": [events.primary_key.columns.keys(), inspector.get_indexes("events"), inspector.get_unique_constraints("events")],
    }


what, url = sys.argv[1:]
if what == "psycopg":
    print(json.dumps(of_psycopg(url)))
elif what == "asyncpg":
    print(json.dumps(asyncio.run(of_asyncpg(url))))
else:
    print(json.dumps(of_sqlalchemy(url)))
