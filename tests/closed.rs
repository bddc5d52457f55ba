//! Does a stranger, a neighbour on the same machine, or another tenant get anything, or stop anything?

mod front;
mod malformed;
mod neighbour;
mod routes;
mod told;

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use weir_model::EventType;
use weir_model::wire::samples;
use weir_tests::{Up, Weir};

fn secrets(weir: &Weir) -> Value {
    serde_json::from_str(&fs::read_to_string(weir.path().join("secrets.json")).unwrap()).unwrap()
}

/// Whoever takes the port of a database that was killed is asked nothing, and told nothing.
#[tokio::test]
async fn a_listener_on_the_databases_port_gets_no_password() {
    let weir = Weir::new();
    let up = weir.up();
    let (reader, port) = (up.postgres(), u16::try_from(secrets(&weir)["port"].as_u64().unwrap()).unwrap());
    let held = weir.hold_server_lock();
    assert!(weir.kill_postgres());
    let started = Instant::now();
    let listener = loop {
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            break listener;
        }
        assert!(started.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(20));
    };
    listener.set_nonblocking(true).unwrap();
    // weir itself, in every way that it connects, asks elsewhere.
    let mut status = weir.start(&["status"]);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(listener.accept().is_err(), "weir came to whoever holds the port");
    // A reader that follows the URL says nothing to a server that does not encrypt.
    let psql = Command::new("psql").args([&reader, "-c", "SELECT 1"]).stderr(Stdio::piped()).spawn().unwrap();
    let heard = std::thread::spawn(move || {
        let started = Instant::now();
        let mut stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(_) if started.elapsed() < Duration::from_secs(20) => std::thread::sleep(Duration::from_millis(20)),
                Err(error) => panic!("{error}"),
            }
        };
        stream.set_nonblocking(false).unwrap();
        let mut words = vec![0; 8];
        stream.read_exact(&mut words).unwrap();
        std::io::Write::write_all(&mut stream, b"N").unwrap();
        stream.read_to_end(&mut words).unwrap();
        words
    });
    let output = psql.wait_with_output().unwrap();
    let words = heard.join().unwrap();
    assert!(!output.status.success() && words.len() == 8, "{} {words:?}", String::from_utf8_lossy(&output.stderr));
    drop(held);
    status.kill().unwrap();
    status.wait().unwrap();
    drop(up);
}

/// The role that dashboards have reads, within limits, and cannot stop writers.
#[tokio::test]
async fn the_readers_role_takes_no_lock_and_makes_nothing() {
    let weir = Weir::new();
    let up = weir.up();
    let reader = weir_tests::weir::connect(&up.postgres()).await;
    reader.batch_execute("SET default_transaction_read_only = off").await.unwrap();
    for forbidden in [
        "SELECT pg_advisory_lock(8626, 1)",
        "SELECT pg_try_advisory_lock(8626, 4)",
        "SELECT pg_advisory_xact_lock(1)",
        "LOCK TABLE append_order IN EXCLUSIVE MODE",
        "LOCK TABLE append_order IN SHARE UPDATE EXCLUSIVE MODE",
        "CREATE TEMP TABLE large (a int)",
        "CREATE TABLE public.mine (a int)",
        "SELECT lo_create(0)",
        "SELECT pg_notify('weir', '')",
        "SELECT * FROM api_tokens",
        "COPY events TO PROGRAM 'cat'",
        "SELECT pg_read_file('postmaster.pid')",
    ] {
        assert!(reader.batch_execute(forbidden).await.is_err(), "{forbidden} is allowed");
    }
    // What it may take holds nobody up.
    reader.batch_execute("BEGIN; LOCK TABLE events IN ACCESS SHARE MODE").await.unwrap();
    let token = up.token("default", "command,read");
    let answer = start_session(&up, &token, "beside-a-reader").await;
    assert_eq!(answer, 201);
    // By TCP nobody else comes in, whatever they know.
    let known = secrets(&weir);
    for (role, password) in [("weir", "owner_password"), ("weir_owner", "worker_password")] {
        let url =
            format!("postgres://{role}:{}@127.0.0.1:{}/postgres", known[password].as_str().unwrap(), known["port"]);
        let error = weir_tests::weir::try_connect(&url).await.expect_err("refused");
        assert!(format!("{error:?}").contains("no pg_hba.conf entry"), "{error:?}");
    }
    // weir works as somebody who is no superuser.
    let owner = weir.owner().await;
    let sql = "SELECT count(*) FILTER (WHERE usesuper), count(*) FROM pg_stat_activity a JOIN pg_user u ON u.usesysid = a.usesysid \
         WHERE a.pid <> pg_backend_pid() AND backend_type = 'client backend'";
    let row = owner.query_one(sql, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
    assert!(row.get::<_, i64>(1) > 1);
    drop(reader);
    up.terminate();
    weir.verify();
}

async fn start_session(up: &Up<'_>, token: &str, id: &str) -> u16 {
    let mut data = samples::one(EventType::LearningSessionStarted);
    data["sessionId"] = json!(id);
    let post = Client::new().post(format!("{}/v1/commands/StartLearningSession", up.api)).bearer_auth(token);
    post.json(&data).send().await.unwrap().status().as_u16()
}

/// Everything below a directory, itself included.
fn all_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() { found.extend(all_below(&path)) } else { found.push(path) }
    }
    found
}

fn open_to_others(dir: &Path) -> Vec<PathBuf> {
    let is_open = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|m| !m.is_symlink() && m.mode() & 0o077 != 0);
    all_below(dir).into_iter().filter(is_open).collect()
}

/// What a data directory holds is its user's alone, and what an earlier version left open is closed, with a word.
#[tokio::test]
async fn a_data_directory_is_its_users_alone() {
    let weir = Weir::new();
    weir.ok(&["demo", "--events", "100", "--rate", "2000"]);
    let data = weir.path();
    assert_eq!(open_to_others(&data), Vec::<PathBuf>::new());
    // As an earlier version left it.
    for path in all_below(&data).into_iter().filter(|path| !path.starts_with(data.join("postgres"))) {
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let output = weir.run(&["verify"]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && words.contains("could be read by others"), "{words}");
    assert_eq!(open_to_others(&data), Vec::<PathBuf>::new());
    // Where others may write, somebody may have: nothing is used.
    fs::set_permissions(&data, fs::Permissions::from_mode(0o770)).unwrap();
    let output = weir.run(&["verify"]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && words.contains("chmod -R go-w"), "{words}");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    // A link in place of a file that is about to be written leads nowhere.
    let victim = weir.path().with_extension("victim");
    fs::write(&victim, "theirs").unwrap();
    for name in ["running.json.new", "secrets.json.new", "weir-data.json.new"] {
        drop(fs::remove_file(data.join(name)));
        std::os::unix::fs::symlink(&victim, data.join(name)).unwrap();
    }
    let up = weir.up();
    up.terminate();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "theirs");
    // Programs that others could have replaced are not run.
    let bin = weir.path().with_extension("bin");
    fs::create_dir(&bin).unwrap();
    fs::set_permissions(&bin, fs::Permissions::from_mode(0o777)).unwrap();
    let output = weir.run(&["status", "--set", &format!("postgres.bin_dir={}", bin.display())]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && words.contains("may be written by others"), "{words}");
    weir.verify();
}

/// A group that is named may read history, and nothing else.
#[tokio::test]
async fn a_group_that_is_named_reads_history_alone() {
    if !rustix::process::geteuid().is_root() {
        use std::io::Write as _;
        writeln!(std::io::stderr(), "NOT RUN: closed::a_group_that_is_named_reads_history_alone; it needs root")
            .unwrap();
        return;
    }
    let weir = Weir::new().with("files.group=daemon");
    weir.ok(&["demo", "--events", "100", "--rate", "2000"]);
    // Its own directory's parent is a temporary one of the tests.
    fs::set_permissions(weir.path().parent().unwrap(), fs::Permissions::from_mode(0o711)).unwrap();
    let as_group = |path: &Path| {
        let read = ["--reuid=1", "--regid=1", "--clear-groups", "find"];
        let output = Command::new("setpriv").args(read).arg(path).args(["-type", "f", "-size", "+0"]).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).lines().count())
    };
    let (all_read, files) = as_group(&weir.path().join("history"));
    assert!(all_read && files > 5, "{files}");
    let read = |name: &str, group: &str| {
        let args = ["--reuid=1", group, "--clear-groups", "cat"];
        let output = Command::new("setpriv").args(args).arg(weir.path().join(name)).output().unwrap();
        output.status.success()
    };
    let log = "history/events/_delta_log/00000000000000000000.json";
    assert!(read(log, "--regid=1") && !read(log, "--regid=2"));
    for private in ["secrets.json", "postgres.log", "demo.header", "server.lock"] {
        assert!(!read(private, "--regid=1"), "{private}");
    }
    weir.verify();
}

fn resident(up: &Up<'_>) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", up.pid())).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

/// Sixty-four clients of one tenant send the worst bodies there are; the process stays small, and another tenant is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worst_bodies_cost_little() {
    let weir = Weir::new();
    let up = weir.up();
    let (hostile, other) = (up.token("hostile", "command,read"), up.token("other", "command,read"));
    let objects = |bytes: usize| format!("[{}{{}}]", r#"{"":0},"#.repeat(bytes / 7));
    let append =
        |data: &str| format!(r#"{{"events":[{{"eventType":"UserRegistered","data":{{"userId":"u","x":{data}}}}}]}}"#);
    let worst =
        [append(&objects(15 << 20)), append(&"[".repeat(1 << 20)), append(&format!("[{}0]", "0,".repeat(7 << 20)))];
    let mut senders = Vec::new();
    for n in 0..64 {
        let (body, token, api) = (worst[n % 3].clone(), hostile.clone(), up.api.clone());
        senders.push(tokio::spawn(async move {
            let post = Client::new().post(format!("{api}/v1/streams/User-u/events")).bearer_auth(token);
            post.header("content-type", "application/json")
                .body(body)
                .send()
                .await
                .map(|answer| answer.status().as_u16())
        }));
    }
    for n in 0..20 {
        assert_eq!(start_session(&up, &other, &format!("beside-{n}")).await, 201);
    }
    for sender in senders {
        // Whoever is refused is told so, though it was still sending.
        let status = sender.await.unwrap().unwrap();
        assert!([400, 413, 429, 503].contains(&status), "{status}");
    }
    assert!(resident(&up) < 400, "{} MiB", resident(&up));
    // And what is taken at most is shown page by page without growing much.
    let mut data = samples::one(EventType::LearningSessionStarted);
    for n in 0..20 {
        (data["sessionId"], data["x"]) = (json!(format!("wide-{n}")), json!(vec![json!({"": 0}); 4900]));
        let post = Client::new().post(format!("{}/v1/commands/StartLearningSession", up.api)).bearer_auth(&hostile);
        assert_eq!(post.json(&data).send().await.unwrap().status(), 201);
    }
    data["x"] = json!(vec![json!({"": 0}); 5100]);
    let post = Client::new().post(format!("{}/v1/commands/StartLearningSession", up.api)).bearer_auth(&hostile);
    let refused = post.json(&data).send().await.unwrap();
    assert_eq!(refused.status(), 413);
    let problem: Value = refused.json().await.unwrap();
    assert_eq!((&problem["maxValues"], &problem["type"]), (&json!(10_000), &json!("urn:weir:problem:too-many-values")));
    for _ in 0..10 {
        let page = Client::new().get(format!("{}/v1/events?limit=1000", up.api)).bearer_auth(&hostile);
        assert!(page.send().await.unwrap().text().await.unwrap().len() > 500_000);
    }
    assert!(resident(&up) < 400, "{} MiB", resident(&up));
    up.caught_up().await;
    up.terminate();
    weir.verify();
}

/// What is no token by its form is refused without the database: it answers while that stands still.
#[tokio::test]
async fn what_is_no_token_never_reaches_the_database() {
    let weir = Weir::new();
    let up = weir.up();
    let token = up.token("default", "read");
    let pid: i32 = fs::read_to_string(weir.path().join("postgres/postmaster.pid"))
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let backends = || -> Vec<i32> {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    };
    let signal = |signal| {
        for pid in backends().into_iter().chain([pid]) {
            // A backend may have ended meanwhile.
            let sent = rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal);
            assert!(sent.is_ok() || sent == Err(rustix::io::Errno::SRCH), "{sent:?}");
        }
    };
    signal(rustix::process::Signal::STOP);
    let ask = |token: String| {
        let get = Client::new().get(format!("{}/v1/events", up.api)).bearer_auth(token).timeout(Duration::from_secs(3));
        async move { get.send().await.map(|answer| answer.status().as_u16()) }
    };
    let mut refused = Vec::new();
    for wrong in
        ["", "x", "weir_", "weir_aaaaaaaaaaaa", &format!("weir_aaaaaaaaaaaa_{}", "g".repeat(64)), &"a".repeat(60_000)]
    {
        refused.push((wrong.len(), ask(wrong.to_owned()).await.ok()));
    }
    let waits = ask(token.clone()).await;
    signal(rustix::process::Signal::CONT);
    assert!(refused.iter().all(|(_, status)| *status == Some(401)), "{refused:?}");
    assert!(waits.is_err(), "a token by its form is looked up");
    assert_eq!(ask(token).await.unwrap(), 200);
    up.terminate();
}

/// Clients that ask and ask, and never read: their connections end, one address never has all of them, and a stop is quick.
#[tokio::test]
async fn clients_that_never_read_lock_nobody_out() {
    let weir = Weir::new().with("api.body_timeout_ms=4000").with("api.connections_max=200");
    let up = weir.up();
    let address = up.api.trim_start_matches("http://").to_owned();
    let requests = "GET /v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(200);
    let mut greedy = Vec::new();
    for _ in 0..60 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        drop(tokio::time::timeout(Duration::from_millis(200), stream.write_all(requests.as_bytes())).await);
        greedy.push(stream);
    }
    // Within a moment each of them is ended by the server: to write to it fails.
    let started = Instant::now();
    let mut open = greedy.len();
    while open > 0 {
        assert!(started.elapsed() < Duration::from_secs(90), "{open} are still open");
        tokio::time::sleep(Duration::from_millis(500)).await;
        open = 0;
        for stream in &mut greedy {
            let written = tokio::time::timeout(Duration::from_millis(20), stream.write_all(b"GET")).await;
            open += usize::from(!matches!(written, Ok(Err(_))));
        }
    }
    assert_eq!(reqwest::get(format!("{}/livez", up.api)).await.unwrap().status(), 200);
    drop(greedy);
    let mut again = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        drop(tokio::time::timeout(Duration::from_millis(200), stream.write_all(requests.as_bytes())).await);
        again.push(stream);
    }
    let started = Instant::now();
    up.terminate();
    assert!(started.elapsed() < Duration::from_secs(20), "a stop took {:?}", started.elapsed());
}

/// Names that are not what they look like are refused where they are given, and an input that is not there empties nothing.
#[tokio::test]
async fn names_are_what_they_look_like_and_a_missing_input_empties_nothing() {
    let weir = Weir::new();
    for tenant in [" acme", "acme ", "ac\u{202e}me", "ac\nme"] {
        let output = weir.run(&["token", "create", "--tenant", tenant]);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && words.contains("that cannot be seen"), "{words}");
        assert!(!words.contains('\u{202e}'), "{words}");
    }
    let rejects = weir.path().with_extension("rejects");
    fs::write(&rejects, "of an earlier import").unwrap();
    let output = weir.run(&["import", "oulad", "/nonexistent", "--rejects", rejects.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read_to_string(&rejects).unwrap(), "of an earlier import");
    // What a client names does not steer the terminal of who looks at it.
    let up = weir.up();
    let token = up.token("default", "command,read");
    let mut data = samples::one(EventType::LearningSessionStarted);
    data["moduleId"] = json!("\u{1b}]0;mine\u{7}=1+1");
    let post = Client::new().post(format!("{}/v1/commands/StartLearningSession", up.api)).bearer_auth(token);
    assert_eq!(post.json(&data).send().await.unwrap().status(), 201);
    up.caught_up().await;
    let file = weir.path().with_extension("csv");
    fs::write(&file, "a\n1\n").unwrap();
    let path = file.display();
    for forbidden in [
        format!("COPY (SELECT 1) TO '{path}.parquet'"),
        format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{path}'"),
        format!("EXPLAIN ANALYZE COPY (SELECT 1) TO '{path}.parquet'"),
        "SET datafusion.execution.batch_size = 1".to_owned(),
        "CREATE TABLE t AS SELECT 1".to_owned(),
        "DROP VIEW events".to_owned(),
        format!("SELECT * FROM '{path}'"),
    ] {
        assert_eq!(weir.run(&["sql", &forbidden]).status.code(), Some(1), "{forbidden}");
    }
    assert!(!PathBuf::from(format!("{path}.parquet")).exists());
    for format in ["table", "csv"] {
        let shown = weir.ok(&["sql", "SELECT module_id FROM learning_session_started", "--format", format]);
        assert!(!shown.contains('\u{1b}') && shown.contains("u{1b}"), "{shown}");
    }
    up.terminate();
}

/// Whoever waits for a lock says for whom, and a command that was stopped in the middle holds nobody up.
#[tokio::test]
async fn who_is_waited_for_is_said_and_a_stopped_status_blocks_nobody() {
    let weir = Weir::new();
    weir.ok(&["token", "list"]);
    let held = weir.hold_server_lock();
    let mut waiting = weir.start(&["token", "list"]);
    let started = Instant::now();
    while !weir.log().contains("server.lock, held by") {
        assert!(started.elapsed() < Duration::from_secs(30), "{}", weir.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(held);
    assert!(waiting.wait().unwrap().success(), "{}", weir.log());

    let up = weir.up();
    let mut watching = weir.command(&["status", "--watch"]).stdout(Stdio::null()).spawn().unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    rustix::process::kill_process(rustix::process::Pid::from_child(&watching), rustix::process::Signal::STOP).unwrap();
    let token = up.token("default", "command");
    weir.ok(&["token", "revoke", token.split('_').nth(1).unwrap()]);
    up.terminate();
    weir.up().terminate();
    weir.verify();
    watching.kill().unwrap();
    watching.wait().unwrap();
}
