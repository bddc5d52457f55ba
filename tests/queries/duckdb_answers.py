"""Answers questions by DuckDB. Arguments: the history table; on standard input its views and the questions as JSON."""

import datetime
import json
import sys

from duckdb_history import opened


def plain(value):
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    return value.isoformat() if isinstance(value, datetime.date) else float(value)


def moment(ms):
    at = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=ms)
    return at.strftime("%Y-%m-%dT%H:%M:%S") + (".%03d" % (ms % 1000) if ms % 1000 else "") + "Z"


def rows(db, sql):
    answer = db.sql(sql)
    is_time = ["TIME ZONE" in str(kind) for kind in answer.types]
    names = [("epoch_ms(%s)" if t else "%s") % ('"' + name + '"') for name, t in zip(answer.columns, is_time)]
    found = answer.project(", ".join(names)).fetchall()
    return [[moment(v) if t and v is not None else plain(v) for v, t in zip(row, is_time)] for row in found]


asked = json.load(sys.stdin)
db = opened(sys.argv[1], asked["views"])
print(json.dumps({name: rows(db, sql) for name, sql in asked["questions"].items()}))
