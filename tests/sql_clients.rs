//! Does any client of Postgres read history, each login its own tenant's rows, and nothing but reads?

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_tests::{Fixture, Up, Weir, seed};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sql_clients");

/// The views that a client finds.
const VIEWS: [&str; 4] = ["assessment_completed", "events", "freshness", "learning_session_started"];

/// A login of SQL over history.
struct Login {
    address: String,
    user: String,
    password: String,
}

impl Login {
    fn of(weir: &Weir, up: &Up<'_>, tenant: &str, scopes: &str) -> Self {
        let password = up.token(tenant, scopes);
        let user = password.split('_').nth(1).unwrap().to_owned();
        Self { address: address(weir), user, password }
    }

    fn url(&self) -> String {
        let Self { address, user, password } = self;
        format!("postgres://{user}:{password}@{address}/history?sslmode=require&channel_binding=require")
    }

    fn psql(&self, arguments: &[&str]) -> Output {
        let mut psql = Command::new("psql");
        psql.args(["--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-d", &self.url()]).args(arguments);
        psql.output().expect("psql runs; install Debian's postgresql-client")
    }

    /// Rows of a query, without its header.
    fn ask(&self, sql: &str) -> Vec<String> {
        let output = self.psql(&["--csv", "--tuples-only", "-c", sql]);
        assert!(output.status.success(), "{sql}: {}", words(&output));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Where `up` says that it takes clients.
fn address(weir: &Weir) -> String {
    let log = weir.log();
    let line = log.lines().rev().find(|line| line.contains("clients of Postgres' protocol")).expect("SQL is served");
    let (_, rest) = line.split_once("address=").unwrap();
    rest.trim_matches(|c: char| c == '"' || c.is_whitespace()).to_owned()
}

fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{}", words(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn python() -> PathBuf {
    let packages = ["psycopg[binary]==3.3.4", "asyncpg==0.32.0", "SQLAlchemy==2.1.9", "JPype1==1.7.1"];
    weir_tests::python::with("sql", &packages).join("bin/python")
}

/// What a script of drivers saw.
fn script(name: &str, arguments: &[&str]) -> Value {
    json_of(&Command::new(python()).arg(Path::new(SCRIPTS).join(name)).args(arguments).output().unwrap())
}

/// Two tenants' learners, and SQL for whoever has a login.
fn filled() -> (Weir, Fixture) {
    let weir = Weir::new().with("sql.listen=127.0.0.1:0").with("sql.memory_max_bytes=100000000");
    let fixture = Fixture::new(120, seed("sql_clients"));
    weir.ok(&["import", "oulad", fixture.arg()]);
    weir.ok(&["import", "oulad", fixture.arg(), "--tenant", "school"]);
    weir.ok(&["up", "--until-caught-up"]);
    (weir, fixture)
}

#[test]
fn each_client_reads_the_same() {
    let (weir, _) = filled();
    let up = weir.up();
    let login = Login::of(&weir, &up, "school", "sql");
    let count = |sql: &str| -> i64 { weir.json(&["sql", sql])[0]["n"].as_i64().unwrap() };
    let events = count("SELECT count(*) AS n FROM events WHERE tenant = 'school'");
    let registered = count("SELECT count(*) AS n FROM user_registered WHERE tenant = 'school'");
    let passed = count("SELECT count(*) AS n FROM assessment_completed WHERE tenant = 'school' AND passed");
    assert!(events > 0 && registered > 0 && passed > 0 && events < count("SELECT count(*) AS n FROM events"));

    // psql: its own words for "what is there", a query, a copy.
    for described in
        ["\\d", "\\dt", "\\dv", "\\d events", "\\l", "\\dn", "\\d+ events", "\\dt+", "\\dv+", "\\du", "\\df"]
    {
        let output = login.psql(&["-c", described]);
        assert!(output.status.success(), "{described}: {}", words(&output));
    }
    let listed = String::from_utf8(login.psql(&["-c", "\\d"]).stdout).unwrap();
    for view in VIEWS {
        assert!(listed.contains(view), "{listed}");
    }
    assert_eq!(login.ask("SELECT count(*) FROM events"), [events.to_string()]);
    let file = weir.path().join("copied.csv");
    let copy = format!("\\copy (SELECT event_id, tenant FROM events) TO '{}' CSV HEADER", file.display());
    let output = login.psql(&["-c", &copy]);
    assert!(output.status.success(), "{}", words(&output));
    let copied = std::fs::read_to_string(&file).unwrap();
    assert_eq!(copied.lines().next(), Some("event_id,tenant"));
    assert_eq!(copied.lines().count(), usize::try_from(events).unwrap() + 1);

    psycopg(&script("clients.py", &["psycopg", &login.url()]), events, registered, passed);
    let seen = script("clients.py", &["asyncpg", &login.url()]);
    assert_eq!(seen, json!({"events": events, "prepared": registered, "rows": events, "copied": events}));
    let seen = script("clients.py", &["sqlalchemy", &login.url()]);
    tables(&seen["tables"]);
    assert_eq!((&seen["passed"], &seen["streamed"], &seen["has"]), (&json!(passed), &json!(passed), &json!(true)));
    let types = json!({"event_id": "TEXT", "score": "DOUBLE PRECISION", "passed": "BOOLEAN", "timestamp": "TIMESTAMP", "offset": "BIGINT"});
    assert_eq!((&seen["types"], &seen["keys"]), (&types, &json!([[], [], []])));
    of_npm(&login, events, registered);
    jdbc(&login, events, registered);
    grafana(&login);
}

fn tables(found: &Value) {
    let found: BTreeSet<&str> = found.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(VIEWS.iter().all(|view| found.contains(view)), "{found:?}");
}

fn psycopg(seen: &Value, events: i64, registered: i64, passed: i64) {
    assert_eq!(seen["events"], events, "{seen:#}");
    assert_eq!(seen["tenants"], json!(["school"]));
    assert!(seen["passed"].as_i64().unwrap() <= passed);
    assert_eq!(seen["types"], json!(["str", "int", "float", "bool", "datetime"]));
    assert_eq!(
        (&seen["prepared"], &seen["cursor"], &seen["copied"]),
        (&json!(registered), &json!(events), &json!(events))
    );
    assert_eq!((&seen["cancelled"], &seen["plan"]), (&json!(true), &json!(true)), "{seen:#}");
    assert!(seen["timeout"].as_str().unwrap().contains("statement timeout (300 ms)"), "{seen:#}");
    assert_eq!(seen["freshness"], json!(["history", "metrics", "read-models"]));
    let expected = [
        ("42P01", "Perhaps you meant \"events\""),
        ("42703", "tenant"),
        ("42601", ""),
        ("25006", "only read"),
        ("25006", "only read"),
        ("25006", "only read"),
        ("42601", ""),
        ("42501", "the engine's own settings"),
        ("42501", "the engine's own settings"),
        ("22012", ""),
        ("53200", "sql.memory_max_bytes"),
    ];
    for (error, (code, part)) in seen["errors"].as_array().unwrap().iter().zip(expected) {
        assert_eq!(error[1], code, "{error}");
        assert!(error[2].as_str().unwrap().contains(part), "{error}");
    }
    assert_eq!(seen["errors"].as_array().unwrap().len(), expected.len());
}

fn of_npm(login: &Login, events: i64, registered: i64) {
    let dir = weir_tests::cache().join("weir").join("npm-pg-8.23.1");
    if !dir.join("node_modules/pg").exists() {
        std::fs::create_dir_all(&dir).unwrap();
        let output =
            Command::new("npm").args(["install", "--no-audit", "--no-fund", "pg@8.23.1"]).current_dir(&dir).output();
        let output = output.expect("npm runs; install Debian's npm");
        assert!(output.status.success(), "pg cannot be had of npm: {}", words(&output));
    }
    let script = Path::new(SCRIPTS).join("client.js");
    let output = Command::new("node").arg(script).arg(login.url()).env("NODE_PATH", dir.join("node_modules")).output();
    // 701 double precision, 16 boolean, 1184 time with time zone: in Postgres' `pg_type`.
    let expected = json!({"events": events, "prepared": registered, "types": [701, 16, 1184], "code": "25006"});
    assert_eq!(json_of(&output.expect("node runs")), expected);
}

fn jdbc(login: &Login, events: i64, registered: i64) {
    const DRIVER: &str = "org.postgresql:postgresql:42.7.8";
    let dir = weir_tests::cache().join("weir").join("jdbc-42.7.8");
    let jar = dir.join("postgresql-42.7.8.jar");
    if !jar.exists() {
        std::fs::create_dir_all(&dir).unwrap();
        let mut maven = Command::new("mvn");
        maven.args(["-q", "-B", "dependency:copy", "-DoutputDirectory=.", &format!("-Dartifact={DRIVER}")]);
        let output = maven.current_dir(&dir).output().expect("mvn runs; install Debian's maven");
        assert!(output.status.success(), "{DRIVER} cannot be had: {}", String::from_utf8_lossy(&output.stdout));
    }
    let url = format!("jdbc:postgresql://{}/history", login.address);
    let seen = script("jdbc.py", &[jar.to_str().unwrap(), &url, &login.user, &login.password]);
    tables(&seen["tables"]);
    assert_eq!(
        (&seen["product"], &seen["prepared"], &seen["fetched"]),
        (&json!("PostgreSQL"), &json!(registered), &json!(events))
    );
    assert_eq!((&seen["columns"]["score"], &seen["columns"]["passed"]), (&json!("float8"), &json!("bool")), "{seen:#}");
    assert!(seen["schemas"].as_array().unwrap().contains(&json!("public")), "{seen:#}");
    assert_eq!((&seen["keys"], &seen["indexes"]), (&json!([]), &json!([])));
}

/// What Grafana's data source for PostgreSQL sends: its test, its lists of tables and columns, a series.
fn grafana(login: &Login) {
    assert_eq!(login.ask("SELECT 1"), ["1"]);
    assert!(!login.ask("SELECT current_setting('server_version_num')::int/100 AS version").is_empty());
    let tables = "SELECT quote_ident(table_name) AS \"table\" FROM information_schema.tables \
        WHERE quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog') ORDER BY 1";
    assert!(login.ask(tables).iter().any(|table| table == "events"));
    let columns = "SELECT quote_ident(column_name) AS \"column\", data_type AS \"type\" FROM information_schema.columns \
        WHERE quote_ident(table_name) = 'events'";
    assert!(login.ask(columns).iter().any(|column| column.starts_with("score,")));
    let series = "SELECT floor(extract(epoch from \"timestamp\")/86400)*86400 AS time, count(*) FROM events \
        WHERE \"timestamp\" BETWEEN '2013-01-01T00:00:00Z' AND '2025-01-01T00:00:00Z' GROUP BY 1 ORDER BY 1";
    assert!(!login.ask(series).is_empty());
}

/// Other tokens open nothing here, wrong passwords neither, and no client comes in clear.
fn strangers(weir: &Weir, up: &Up<'_>, school: &Login) {
    for scopes in ["read", "admin", "command,read,admin"] {
        let refused = Login::of(weir, up, "school", scopes).psql(&["-c", "SELECT 1"]);
        assert!(!refused.status.success() && words(&refused).contains("authentication"), "{}", words(&refused));
    }
    let wrong = Login {
        password: format!("{}0", school.password),
        ..Login { address: address(weir), user: school.user.clone(), password: String::new() }
    };
    let unknown = Login { address: address(weir), user: "000000000000".to_owned(), password: school.password.clone() };
    let said = [&wrong, &unknown].map(|login| words(&login.psql(&["-c", "SELECT 1"])).replace(&login.user, "USER"));
    assert!(said[0].contains("authentication") && said[0] == said[1], "{said:?}");
    let clear = Command::new("psql")
        .args(["--no-psqlrc", "-c", "SELECT 1", "-d", &school.url().replace("require", "disable")])
        .output()
        .unwrap();
    assert!(!clear.status.success() && words(&clear).contains("sslmode=require"), "{}", words(&clear));
}

#[test]
fn a_login_sees_its_tenants_rows_alone_until_it_is_revoked() {
    let (weir, _) = filled();
    let up = weir.up();
    let (school, other) = (Login::of(&weir, &up, "school", "sql"), Login::of(&weir, &up, "default", "sql"));
    let operator = Login::of(&weir, &up, "default", "operator");
    let tenants = "SELECT DISTINCT tenant FROM events ORDER BY 1";
    assert_eq!(school.ask(tenants), ["school"]);
    assert_eq!(other.ask(tenants), ["default"]);
    assert_eq!(operator.ask(tenants), ["default", "school"]);
    // By every name that there is.
    let all = "SELECT table_schema || '.' || table_name FROM information_schema.tables WHERE table_schema = 'public'";
    let mut with_tenants = 0;
    for table in school.ask(all) {
        if login_has_tenants(&school, &table) {
            with_tenants += 1;
            let others = school.ask(&format!("SELECT count(*) FROM {table} WHERE tenant <> 'school'"));
            assert_eq!(others, ["0"], "{table}");
        }
    }
    assert!(with_tenants > 10, "{with_tenants}");
    // What fails on other tenants' rows tells nothing of them: it is not evaluated there.
    let own = school.ask("SELECT count(*) FROM events");
    for sql in [
        "SELECT count(*) FROM events WHERE CAST(CASE WHEN tenant <> 'school' THEN event_id ELSE '1' END AS INT) = 1",
        "SELECT count(*) FROM events WHERE 1 / (CASE WHEN tenant = 'school' THEN 1 ELSE 0 END) = 1",
        "SELECT sum(CAST(CASE WHEN tenant <> 'school' THEN event_id ELSE '1' END AS INT)) FROM events",
        "SELECT sum(1 / (CASE WHEN tenant = 'school' THEN 1 ELSE 0 END)) FROM events_raw",
        "SELECT count(DISTINCT a.event_id) FROM events a JOIN events b ON a.event_id = b.event_id AND 1 / (CASE WHEN b.tenant = 'school' THEN 1 ELSE 0 END) = 1",
    ] {
        assert_eq!(school.ask(sql), own, "{sql}");
    }
    let counted = school.ask("SELECT count(*) FROM events WHERE tenant = 'default' OR 1 = 1");
    assert_eq!(counted, school.ask("SELECT count(*) FROM events"));

    strangers(&weir, &up, &school);
    an_open_connection(&weir, &up, &school);
}

/// A client that asks the same prepared statement again and again.
struct Asking {
    driver: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Asking {
    fn new(login: &Login) -> Self {
        let script = "import psycopg, sys\nc = psycopg.connect(sys.argv[1], autocommit=True)\nfor line in sys.stdin:\n  \
            try:\n    print(c.execute('SELECT count(*) FROM events', prepare=True).fetchone()[0], flush=True)\n  \
            except Exception as e:\n    print(str(e).splitlines()[0], flush=True)";
        let mut python = Command::new(python());
        python.args(["-c", script, &login.url()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut driver = python.spawn().unwrap();
        let lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        Self { driver, lines }
    }

    fn next(&mut self) -> String {
        self.driver.stdin.as_mut().unwrap().write_all(b"?\n").unwrap();
        self.lines.next().unwrap().unwrap()
    }
}

/// What `weir status` says of SQL's trouble, once that is so.
fn until(up: &Up<'_>, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let status = up.status();
        let part =
            status["parts"].as_array().unwrap().iter().find(|part| part["part"] == "sql").expect("SQL is a part");
        if is_so(&part["trouble"]) {
            return part["trouble"].clone();
        }
        assert!(Instant::now() < deadline, "{part}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A metric of the process, by name and labels.
fn counted(up: &Up<'_>, name: &str) -> f64 {
    let asked = async { reqwest::get(format!("{}/metrics", up.api)).await.unwrap().text().await.unwrap() };
    let text = tokio::runtime::Runtime::new().unwrap().block_on(asked);
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// New rows are seen by a connection that was there before, also after history could not be read; a revoked login asks nothing more.
fn an_open_connection(weir: &Weir, up: &Up<'_>, school: &Login) {
    let mut asking = Asking::new(school);
    let before: i64 = asking.next().parse().unwrap();
    let log = weir.path().join("history/events/_delta_log");
    let versions = std::fs::read_dir(&log).unwrap().filter_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.strip_suffix(".json")?.parse::<u64>().ok()
    });
    let next = log.join(format!("{:020}.json", versions.max().unwrap() + 1));
    std::fs::write(&next, "no commit").unwrap();
    let error = asking.next();
    assert!(error.contains("history cannot be read"), "{error}");
    let trouble = until(up, |trouble| trouble.is_string());
    assert!(trouble.as_str().unwrap().contains("history cannot be read"), "{trouble}");
    std::fs::remove_file(&next).unwrap();
    // Also if no client comes.
    until(up, Value::is_null);
    assert_eq!(asking.next(), before.to_string());

    let more = Fixture::new(20, seed("sql_clients") + 1);
    weir.ok(&["import", "oulad", more.arg(), "--tenant", "school"]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while asking.next().parse::<i64>().unwrap() <= before {
        assert!(Instant::now() < deadline, "the new rows are not seen");
        std::thread::sleep(Duration::from_millis(200));
    }
    weir.ok(&["token", "revoke", &school.user]);
    std::thread::sleep(Duration::from_millis(1500));
    let refused = asking.next();
    assert!(refused.contains("revoked"), "{refused}");
    drop(asking.driver.stdin.take());
    asking.driver.wait().unwrap();
}

fn login_has_tenants(login: &Login, table: &str) -> bool {
    let name = table.split('.').nth(1).unwrap();
    let sql = format!(
        "SELECT count(*) FROM information_schema.columns WHERE table_name = '{name}' AND column_name = 'tenant'"
    );
    login.ask(&sql) == ["1"]
}

/// A client that does not log in holds no place for long; statements are counted by how they ended.
#[test]
fn who_does_not_log_in_is_sent_away_and_statements_are_counted() {
    let weir = Weir::new().with("sql.listen=127.0.0.1:0").with("sql.connections_max=3");
    let up = weir.up();
    let login = Login::of(&weir, &up, "default", "operator");
    assert_eq!(login.ask("SELECT 1"), ["1"]);
    assert!(!login.psql(&["-c", "SELECT nothing"]).status.success());
    let cut_off = "SET statement_timeout = 300; SELECT count(*) FROM generate_series(1, 10000000) a CROSS JOIN generate_series(1, 10000000) b";
    let arguments: Vec<&str> = cut_off.split("; ").flat_map(|sql| ["-c", sql]).collect();
    assert!(words(&login.psql(&arguments)).contains("statement timeout"));
    let statements = |outcome: &str| counted(&up, &format!("weir_sql_statements_total{{outcome=\"{outcome}\"}}"));
    assert!(statements("ok") >= 1.0 && statements("error") >= 1.0 && statements("cancelled") >= 1.0);
    assert!(counted(&up, "weir_sql_statement_seconds_count") >= 3.0);

    let mut idle = std::net::TcpStream::connect(&login.address).unwrap();
    // It would be the library's minute.
    idle.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(idle.read(&mut [0]).expect("it is closed"), 0);
    assert!(counted(&up, "weir_sql_connections_refused_total{reason=\"slow\"}") >= 1.0);
    until(&up, Value::is_null);
}

/// As many connections as the setting says, each statement as long, in a process of its own.
#[test]
fn connections_and_statements_are_bounded() {
    let weir = Weir::new().with("sql.connections_max=2").with("sql.statement_timeout_seconds=1");
    let up = weir.up();
    let port = weir_tests::postgres::free_port();
    let mut serving = weir.start(&["sql", "--serve", &format!("127.0.0.1:{port}")]);
    let token = up.token("default", "operator");
    let user = token.split('_').nth(1).unwrap().to_owned();
    let login = Login { address: format!("127.0.0.1:{port}"), user, password: token };
    let deadline = Instant::now() + Duration::from_secs(60);
    while !login.psql(&["-c", "SELECT 1"]).status.success() {
        assert!(Instant::now() < deadline, "{}", words(&login.psql(&["-c", "SELECT 1"])));
        std::thread::sleep(Duration::from_millis(200));
    }
    let endless = "SELECT count(*) FROM generate_series(1, 10000000) a CROSS JOIN generate_series(1, 10000000) b";
    let refused = words(&login.psql(&["-c", endless]));
    assert!(refused.contains("statement timeout (1000 ms)"), "{refused}");
    // A client's own bound may be shorter, not longer.
    let refused = words(&login.psql(&["-c", "SET statement_timeout = 60000", "-c", endless]));
    assert!(refused.contains("statement timeout (1000 ms)"), "{refused}");
    // Those of before may not have been let go of yet, and then it is one of these that is refused.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let idle: Vec<_> = (0..2).map(|_| std::net::TcpStream::connect(&login.address).unwrap()).collect();
        std::thread::sleep(Duration::from_millis(300));
        let is_refused = !login.psql(&["-c", "SELECT 1"]).status.success();
        drop(idle);
        if is_refused {
            break;
        }
        assert!(Instant::now() < deadline, "a third connection");
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(login.ask("SELECT 1"), ["1"]);
    rustix::process::kill_process(rustix::process::Pid::from_child(&serving), rustix::process::Signal::TERM).unwrap();
    assert!(serving.wait().unwrap().success());
}
