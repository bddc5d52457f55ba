"""PostgreSQL's JDBC driver against SQL over history, with the calls for metadata that DBeaver makes; prints what it saw as JSON."""

import json
import sys

import jpype

jar, url, user, password = sys.argv[1:]
jpype.startJVM("-Xmx256m", classpath=[jar])
properties = jpype.JClass("java.util.Properties")()
for name, value in {"user": user, "password": password, "sslmode": "require", "channelBinding": "require"}.items():
    properties.setProperty(name, value)
connection = jpype.JClass("java.sql.DriverManager").getConnection(url, properties)


def rows(result, *columns):
    found = []
    while result.next():
        found.append([None if (value := result.getString(column)) is None else str(value) for column in columns])
    return found


about = connection.getMetaData()
seen = {
    "product": str(about.getDatabaseProductName()),
    "catalogs": [row[0] for row in rows(about.getCatalogs(), "TABLE_CAT")],
    "schemas": [row[0] for row in rows(about.getSchemas(), "TABLE_SCHEM")],
    "tables": [row[0] for row in rows(about.getTables(None, "public", "%", None), "TABLE_NAME")],
    "columns": dict(rows(about.getColumns(None, "public", "events", "%"), "COLUMN_NAME", "TYPE_NAME")),
    "keys": rows(about.getPrimaryKeys(None, "public", "events"), "COLUMN_NAME"),
    "indexes": rows(about.getIndexInfo(None, "public", "events", False, True), "INDEX_NAME"),
}
statement = connection.prepareStatement("SELECT count(*) FROM events WHERE event_type = ?")
# After five times the driver asks for a statement with a name.
for _ in range(8):
    statement.setString(1, "UserRegistered")
    seen["prepared"] = int(rows(statement.executeQuery(), 1)[0][0])
connection.setAutoCommit(False)
some = connection.createStatement()
some.setFetchSize(10)
seen["fetched"] = len(rows(some.executeQuery("SELECT event_id FROM events"), 1))
connection.rollback()
connection.close()
print(json.dumps(seen))
