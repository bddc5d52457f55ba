//! Is an archived event store the same again when it is loaded, and is everything else refused?

use std::fs;
use std::path::Path;

use weir_tests::{Facts, Fixture, Weir, seed};

fn fixture(test: &str, rows: usize) -> (Fixture, Facts) {
    let fixture = Fixture::new(rows, seed(test));
    let facts = Facts::of_input(fixture.path());
    (fixture, facts)
}

/// Every row of the event store, as Postgres hashes it.
async fn rows(weir: &Weir) -> String {
    let sql = "SELECT count(*)::text || ' ' || coalesce(sum(hashtextextended(e::text, 0)), 0)::text FROM events e";
    weir.owner().await.query_one(sql, &[]).await.unwrap().get(0)
}

fn refused(weir: &Weir, args: &[&str], words: &str) {
    let output = weir.run(args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.contains(words), "{args:?}: {said}");
}

#[tokio::test]
async fn an_archive_is_the_event_store_again_and_every_sink_goes_on() {
    let (fixture, facts) = fixture("archive", 2000);
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}/archive", dir.path().display());
    let weir = Weir::new();
    weir.ok(&["import", "oulad", fixture.arg()]);
    refused(&weir, &["archive", "events"], "the setting archive.url");
    refused(&weir, &["archive", "events", "--to", &url, "--below", "999999"], "the event store ends with");
    // In two parts, whatever dies; then nothing is new.
    let half = (facts.total() / 2).to_string();
    for failpoint in ["archive.before_part", "archive.before_part"] {
        weir.dies_at(failpoint, &["archive", "events", "--to", &url, "--below", &half]);
    }
    weir.dies_at("archive.after_part", &["archive", "events", "--to", &url, "--below", &half]);
    refused(
        &weir,
        &["archive", "events", "--to", &url, "--from", "7"],
        &format!("ends below {half}: the next part begins there"),
    );
    let said = weir.ok(&["archive", "events", "--set", &format!("archive.url={url}")]);
    assert!(
        said.contains(&format!("has everything below {}", facts.total() + 1)) && said.contains(" in 1 parts"),
        "{said}"
    );
    let said = weir.ok(&["archive", "events", "--to", &url]);
    assert!(said.starts_with("ok: 0 events in 0 parts"), "{said}");
    let said = weir.ok(&["archive", "check", "--at", &url]);
    assert!(said.starts_with(&format!("{} events in 2 parts", facts.total())), "{said}");
    refused(
        &weir,
        &["archive", "load", "--from", &url, "--store-id", "keep"],
        "holds events: an archive is loaded into an empty one only",
    );

    // Another machine: the same rows under the same id, whole or not at all.
    let again = Weir::new();
    again.ok(&["status"]);
    for failpoint in ["archive.before_load", "archive.before_load"] {
        again.dies_at(failpoint, &["archive", "load", "--from", &url, "--store-id", "keep"]);
    }
    again.dies_at("archive.after_load", &["archive", "load", "--from", &url, "--store-id", "keep"]);
    {
        let (up, up_again) = (weir.up(), again.up());
        assert_eq!(rows(&again).await, rows(&weir).await);
        let id = "SELECT id::text FROM event_store";
        let of = async |weir: &Weir| weir.owner().await.query_one(id, &[]).await.unwrap().get::<_, String>(0);
        assert_eq!(of(&again).await, of(&weir).await);
        up_again.caught_up().await;
        facts.hold(&again, &up_again).await;
        up.terminate();
        up_again.terminate();
    }
    again.verify();
    // It takes further events, and the archive goes on with the copy as with the first.
    let (more, _) = self::fixture("archive_more", 200);
    again.ok(&["import", "oulad", more.arg()]);
    let said = again.ok(&["archive", "events", "--to", &url]);
    assert!(said.contains(" in 1 parts"), "{said}");
    again.ok(&["archive", "check", "--at", &url]);

    what_is_broken_is_said(&weir, &more, (dir.path(), &url));
}

/// What is not what was written is said, and loaded nowhere.
fn what_is_broken_is_said(weir: &Weir, more: &Fixture, (dir, url): (&Path, &str)) {
    let newer = Weir::new();
    newer.ok(&["import", "oulad", more.arg()]);
    refused(&newer, &["archive", "events", "--to", url], "is of the event store");
    let part = fs::read_dir(dir.join("archive")).unwrap().map(|entry| entry.unwrap().path());
    let part = part
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .find(|path| path.display().to_string().contains("events-"))
        .unwrap();
    let text = fs::read_to_string(&part).unwrap();
    fs::write(&part, text.replacen("\"hash\":\"", "\"hash\":\"0", 1)).unwrap();
    refused(weir, &["archive", "check", "--at", url], "and should have");
    let empty = Weir::new();
    refused(&empty, &["archive", "load", "--from", url, "--store-id", "new"], "and should have");
    let files = fs::read_dir(dir.join("archive")).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|end| end == "parquet"))
        .for_each(|path| fs::remove_file(path).unwrap());
    fs::write(&part, text).unwrap();
    refused(weir, &["archive", "check", "--at", url], "reading a part of the archive");
    refused(weir, &["archive", "check", "--at", "file:///nowhere/at/all"], "is no archive");
}
