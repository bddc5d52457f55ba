//! Does the table of an older weir become today's, whatever dies on the way, and does a late insert never win?

use weir_tests::{ClickHouse, Weir, root};

use super::{caught_up, fixture, holds, refusals::says, weir};

/// Makes of today's table what the first migrations made, with the same rows, as an older weir left them: some of them twice.
async fn age(server: &ClickHouse) {
    let columns = "SELECT arrayStringConcat(groupArray(concat('`', name, '`')), ', ') FROM system.columns \
                   WHERE database = 'weir' AND table = 'events_raw'";
    let columns = server.sql(columns).await;
    server.sql("DROP VIEW weir.events_raw").await;
    for name in ["V1__events.sql", "V5__user_and_payload.sql"] {
        let file = std::fs::read_to_string(root().join("sql/clickhouse").join(name)).unwrap();
        let sql: String =
            file.lines().filter(|line| !line.starts_with("--")).map(|line| line.to_owned() + "\n").collect();
        for statement in sql.split(";\n").map(str::trim).filter(|statement| !statement.is_empty()) {
            let replaced = [
                ("{database}", "weir"),
                ("{on_cluster}", ""),
                ("{local_table}", "events_raw"),
                ("{engine}", "ReplacingMergeTree"),
            ]
            .iter()
            .fold(statement.to_owned(), |text, (place, value)| text.replace(place, value));
            server.sql(replaced.trim_end_matches(';')).await;
        }
    }
    for condition in ["1", "`offset` % 3 = 0"] {
        let sql = format!(
            "INSERT INTO weir.events_raw ({columns}) SELECT {columns} FROM weir.events_stored FINAL WHERE {condition}"
        );
        server.sql(&sql).await;
    }
    server.sql("DROP TABLE weir.events_stored SYNC").await;
    server.sql("ALTER TABLE weir.weir_migrations DELETE WHERE number = 6 SETTINGS mutations_sync = 2").await;
}

async fn hash(server: &ClickHouse) -> String {
    let sql = "SELECT count(), sum(cityHash64(tuple(*))) FROM (SELECT event_id, is_other, profile, changed_fields, previous_values, \
               new_values, content_metadata, processing_options, results, device_info, answers, analytics, task_payload, result, \
               resource_usage, quality_metrics, data, extra, score, position, `timestamp`, recorded_at FROM weir.events)";
    server.sql(sql).await
}

#[tokio::test]
async fn the_table_of_an_older_weir_is_carried_over_whatever_dies() {
    let (fixture, facts) = fixture("clickhouse_carried", 2000);
    let server = ClickHouse::start();
    let weir = weir(server.settings());
    weir.ok(&["import", "oulad", fixture.arg()]);
    weir.ok(&["up", "--until-caught-up"]);
    let before = hash(&server).await;
    age(&server).await;
    assert_eq!(hash(&server).await, before, "every nested value is shown as it was stored");
    // The lane waits, and says for what.
    let up = weir.up();
    says(&weir, &["has the columns of an older weir", "`weir clickhouse migrate` copies them month by month"]).await;
    up.lanes_caught_up(3).await;
    up.terminate();
    let plan = weir.ok(&["clickhouse", "migrate", "--dry-run"]);
    for words in ["CREATE TABLE IF NOT EXISTS `weir`.events_stored", "INSERT INTO `weir`.events_stored", "RENAME TABLE"]
    {
        assert!(plan.contains(words), "{plan}");
    }
    for failpoint in [
        "clickhouse.month_copied:2",
        "clickhouse.old_table_aside",
        "clickhouse.table_compared",
        "clickhouse.table_compared",
    ] {
        weir.dies_at(failpoint, &["clickhouse", "migrate"]);
    }
    // A row that is not what it was is no copy.
    let change = |what: &str| {
        format!("ALTER TABLE weir.events_stored UPDATE reason = {what} WHERE `offset` = 7 SETTINGS mutations_sync = 1")
    };
    server.sql(&change("'forged'")).await;
    let refused = weir.run(&["clickhouse", "migrate"]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("are not the same in events_stored"), "{words}");
    server.sql(&change("NULL")).await;
    let output = weir.run(&["clickhouse", "migrate"]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && words.contains(&format!("{} rows carried over", facts.total())), "{words}");
    assert_eq!(hash(&server).await, before);
    let (more, _) = super::fixture("clickhouse_carried_on", 300);
    weir.ok(&["import", "oulad", more.arg()]);
    let up = weir.up();
    caught_up(&up).await;
    up.terminate();
    weir.verify();
    server.sql("DROP TABLE weir.events_format_1 SYNC").await;
    assert!(weir.ok(&["clickhouse", "migrate", "--dry-run"]).is_empty());
    goes_on_after_a_loss(&server, &weir).await;
}

/// Views and table that are dropped come back as they are today.
async fn goes_on_after_a_loss(server: &ClickHouse, weir: &Weir) {
    let rows = server.sql("SELECT count() FROM weir.events").await;
    server.sql("DROP VIEW weir.events_raw").await;
    server.sql("DROP TABLE weir.events_stored SYNC").await;
    weir.ok(&["clickhouse", "migrate"]);
    weir.ok(&["ledger", "reset", "clickhouse", "--topic", "events", "--to", "earliest", "--yes"]);
    weir.ok(&["up", "--until-caught-up"]);
    weir.verify();
    assert_eq!(server.sql("SELECT count() FROM weir.events").await, rows);
}

/// What an owner of an older epoch inserts after its successor, under the same coordinates, is never shown.
#[tokio::test]
async fn a_late_insert_of_an_older_epoch_never_wins() {
    let (fixture, facts) = fixture("clickhouse_epochs", 300);
    let server = ClickHouse::start();
    let weir = weir(server.settings());
    weir.ok(&["import", "oulad", fixture.arg()]);
    weir.ok(&["up", "--until-caught-up"]);
    weir.ok(&["ledger", "reset", "clickhouse", "--topic", "events", "--to", "earliest", "--yes"]);
    weir.ok(&["up", "--until-caught-up"]);
    assert_eq!(server.sql("SELECT min(epoch) > 2 FROM weir.events_stored FINAL").await, "1");
    let late = "INSERT INTO weir.events_stored SELECT * REPLACE (1 AS epoch, 'from an older build' AS reason) FROM weir.events_stored FINAL";
    server.sql(late).await;
    holds(&server, &weir, &facts).await;
    server.sql("OPTIMIZE TABLE weir.events_stored FINAL").await;
    assert_eq!(server.sql("SELECT countIf(reason = 'from an older build') FROM weir.events_stored").await, "0");
    holds(&server, &weir, &facts).await;
}
