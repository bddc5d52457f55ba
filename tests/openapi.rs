//! Does the HTTP side answer as its OpenAPI document says, to whatever an outside tester thinks of?

use std::process::Command;

use serde_json::Value;
use weir_tests::{Weir, python};

/// Not ours: Schemathesis makes requests from the document, good and bad, and holds the answers against it.
#[tokio::test]
async fn schemathesis_finds_no_undocumented_answer() {
    let weir = Weir::new().with("api.requests_per_second=100000");
    let up = weir.up();
    let token = up.token("default", "admin");
    let seed = weir_tests::seed("schemathesis").to_string();
    let report = tempfile::tempdir().unwrap();
    let output = Command::new(python::with("schemathesis", &["schemathesis==4.32.5"]).join("bin/schemathesis"))
        .args(["run", &format!("{}/v1/openapi.json", up.api), "--seed", &seed, "--no-color"])
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .args([
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        ])
        .args(["--max-examples", "40", "--request-timeout", "10", "--generation-database", "none"])
        // Waiting for a lane is tested elsewhere.
        .args(["--exclude-path", "/v1/lanes/{lane}", "--exclude-path", "/readyz"])
        .current_dir(report.path())
        .output()
        .unwrap();
    let words = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{words}\n{}", weir.log());
    println!("{}", words.lines().rev().take(12).collect::<Vec<_>>().join("\n"));
    up.caught_up().await;
    up.terminate();
    weir.verify();
}

#[tokio::test]
async fn every_route_is_in_the_document_and_every_operation_is_there() {
    let weir = Weir::new();
    let up = weir.up();
    let document: Value = reqwest::get(format!("{}/v1/openapi.json", up.api)).await.unwrap().json().await.unwrap();
    let source = std::fs::read_to_string(weir_tests::root().join("pipeline/api/src/lib.rs")).unwrap();
    let paths = document["paths"].as_object().unwrap();
    for route in source.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        let named =
            |path: &&String| **path == route || (route.ends_with("{command}") && path.starts_with("/v1/commands/"));
        assert!(paths.keys().any(|path| named(&path)), "{route} is not documented");
    }
    for (path, operations) in paths {
        for method in operations.as_object().unwrap().keys() {
            let url = format!("{}{}", up.api, path.replace("{stream}", "User-nobody").replace("{lane}", "history"));
            let method: reqwest::Method = method.to_uppercase().parse().unwrap();
            let status = reqwest::Client::new().request(method, url).send().await.unwrap().status().as_u16();
            let documented = &operations.as_object().unwrap().values().next().unwrap()["responses"];
            assert!(documented.get(status.to_string()).is_some() || status == 401, "{path}: {status}");
        }
    }
    up.terminate();
}
