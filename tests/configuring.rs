//! Do settings say where they come from, and what is wrong with them?

use weir_tests::Weir;

#[test]
fn an_unknown_setting_is_an_error_that_suggests_the_right_one() {
    for setting in ["lanes.history.flush_intervall_ms=1", "api.listn=127.0.0.1:0"] {
        let weir = Weir::new().with(setting);
        for command in [&["status"][..], &["config", "validate"]] {
            let output = weir.run(command);
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{words}");
            assert!(
                words.contains("did you mean `lanes.history.flush_interval_ms`")
                    || words.contains("did you mean `api.listen`"),
                "{words}"
            );
        }
    }
}

#[test]
fn file_environment_and_flag_override_each_other_in_this_order() {
    let weir = Weir::new();
    let file = weir.path().with_extension("toml");
    std::fs::write(&file, "[lanes.read-models]\nrecords_max = 11\nbytes_max = 22\npoll_records_max = 33\n").unwrap();
    let show = |environment: &[(&str, &str)], args: &[&str]| {
        let mut command = weir.command(&["config", "show", "--format", "json", "--config", file.to_str().unwrap()]);
        let output = command.args(args).envs(environment.iter().copied()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let rows = rows.as_array().unwrap().clone();
        move |key: &str| {
            let row = rows.iter().find(|row| row["setting"] == key).unwrap();
            (row["value"].as_i64().unwrap(), row["from"].as_str().unwrap().to_owned())
        }
    };
    let environment =
        [("WEIR_LANES__READ_MODELS__BYTES_MAX", "222"), ("WEIR_LANES__READ_MODELS__POLL_RECORDS_MAX", "333")];
    let value = show(&environment, &["--set", "lanes.read-models.poll_records_max=3333"]);
    assert_eq!(value("lanes.read-models.records_max"), (11, file.display().to_string()));
    assert_eq!(value("lanes.read-models.bytes_max"), (222, "environment".to_owned()));
    assert_eq!(value("lanes.read-models.poll_records_max"), (3333, "flag".to_owned()));
    assert_eq!(value("append.commands_max"), (512, "default".to_owned()));

    let validate = |args: &[&str]| {
        let mut command = weir.command(&["config", "validate"]);
        command.args(args).env("WEIR_NONSENSE", "1").output().unwrap().status.code()
    };
    assert_eq!((validate(&[]), validate(&["--no-environment"])), (Some(1), Some(0)));
}

#[test]
fn schema_completions_and_manual_are_there() {
    let weir = Weir::new();
    let schema: serde_json::Value = serde_json::from_str(&weir.ok(&["config", "schema"])).unwrap();
    assert_eq!(schema["properties"]["api"]["properties"]["listen"]["default"], "127.0.0.1:8626");
    assert!(weir.ok(&["completions", "bash"]).contains("dead-letters"));
    assert!(weir.ok(&["man"]).contains("weir"));
    let bare = std::process::Command::new(weir_tests::binary()).output().unwrap();
    let words = String::from_utf8_lossy(&bare.stderr).into_owned();
    assert!(
        bare.status.code() == Some(2) && words.contains("Where to begin") && words.contains("\\d lists"),
        "{words}"
    );
    assert!(!weir.path().exists(), "none of these touches the data directory");
}

#[tokio::test]
async fn settings_of_sessions_and_options_of_the_object_store_are_passed_on() {
    let weir =
        Weir::new().with("postgres.session.work_mem=\"7MB\"").with("postgres.session.application_name=\"my weir\"");
    let up = weir.up();
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'my weir'";
    assert!(weir.owner().await.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) > 0);
    up.terminate();
    let weir = weir.with("history.storage.aws_secret_access_key=hush").with("history.storage.aws_region=eu-west-1");
    let shown = weir.ok(&["config", "show"]);
    assert!(shown.contains("eu-west-1") && !shown.contains("hush"), "{shown}");
    weir.ok(&["sql", "SELECT 1"]);
    let wrong = Weir::new().with("postgres.session.no_such_thing=1").run(&["status"]);
    let words = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(wrong.status.code() == Some(1) && words.contains("no_such_thing"), "{words}");
    let wrong = Weir::new().with("jobs.verify.schedule=\"every day\"").run(&["config", "validate"]);
    let words = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(wrong.status.code() == Some(1) && words.contains("jobs.verify.schedule"), "{words}");
}
