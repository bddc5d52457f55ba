//! Brokers and a database that demand TLS and a password, and where those passwords are seen (nowhere).

use std::fs;

use weir_tests::tls::Certificates;
use weir_tests::{Facts, Fixture, Kafka, Postgres, Weir, seed};

use super::{agrees, apply_topics, on};

const PASSWORD: &str = weir_tests::kafka::PASSWORD;

/// Settings that reach such brokers; the password stands in a file.
fn secured(kafka: &Kafka, mechanism: &str, certificates: &Certificates) -> Weir {
    let secret = certificates.path().join("password");
    fs::write(&secret, format!("{PASSWORD}\n")).unwrap();
    let mut weir = on(kafka);
    for setting in [
        "kafka.client.security.protocol=SASL_SSL",
        &format!("kafka.client.sasl.mechanism={mechanism}"),
        "kafka.client.sasl.username=weir",
        &format!("kafka.client.sasl.password=${{file:{}}}", secret.display()),
        &format!("kafka.client.ssl.ca.location={}", certificates.root().display()),
    ] {
        weir = weir.with(setting);
    }
    weir
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_and_postgres_demand_tls_and_passwords() {
    let certificates = Certificates::make("127.0.0.1");
    let kafka = Kafka::start_secure(&certificates);
    let server = Postgres::start_secure(&certificates, PASSWORD);
    // Without any of it nobody gets in, and the words say why it waits or ends.
    let plain = on(&kafka).run(&["topics", "apply"]);
    assert_eq!(plain.status.code(), Some(1));
    let refused = |url: &str| {
        let output = on(&kafka).on(url).run(&["status"]);
        assert_eq!(output.status.code(), Some(1), "{url}");
        String::from_utf8(output.stderr).unwrap()
    };
    let at = |query: &str| format!("postgres://weir:{PASSWORD}@127.0.0.1:{}/postgres?{query}", server.port());
    let words = refused(&at("sslmode=disable"));
    assert!(words.contains("no encryption") && !words.contains(PASSWORD), "{words}");
    let words = refused(&at("sslmode=verify-full"));
    assert!(words.contains("certificate verify failed") && !words.contains(PASSWORD), "{words}");
    let elsewhere = Certificates::make("elsewhere.example");
    let root = |certificates: &Certificates| format!("sslrootcert={}", certificates.root().display());
    let words = refused(&at(&format!("sslmode=verify-full&{}", root(&elsewhere))));
    assert!(words.contains("certificate verify failed"), "{words}");

    let secret = certificates.path().join("postgres-password");
    fs::write(&secret, PASSWORD).unwrap();
    let url = format!(
        "postgres://weir:${{file:{}}}@127.0.0.1:{}/postgres?sslmode=verify-full&{}",
        secret.display(),
        server.port(),
        root(&certificates)
    );
    for (mechanism, rows) in [("SCRAM-SHA-512", 600), ("PLAIN", 300)] {
        // Each on a database of its own.
        let name = mechanism.to_lowercase().replace('-', "_");
        server.create_database(PASSWORD, &name).await;
        let there = |url: &str| url.replace("/postgres?", &format!("/{name}?"));
        let weir = secured(&kafka, mechanism, &certificates).on_secured(&there(&url), &there(&at("sslmode=require")));
        if mechanism == "SCRAM-SHA-512" {
            apply_topics(&weir);
            let fixture = Fixture::new(rows, seed("kafka::security"));
            let facts = Facts::of_input(fixture.path());
            weir.ok(&["import", "oulad", fixture.arg()]);
            agrees(&weir, &facts).await;
        } else {
            weir.ok(&["topics", "diff"]);
        }
        let shown = weir.ok(&["config", "show"]);
        assert!(!shown.contains(PASSWORD) && shown.contains("sasl.password"), "{shown}");
        assert!(!weir.log().contains(PASSWORD), "{}", weir.log());
    }
    let wrong = secured(&kafka, "PLAIN", &certificates).with("kafka.client.sasl.password=wrong");
    let output = wrong.run(&["topics", "diff"]);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && words.contains("uthenticat"), "{words}");
}
