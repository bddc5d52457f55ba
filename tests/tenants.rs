//! Does a tenant's own role in Postgres see that tenant's rows, and nothing else?

use std::process::{Command, Output};

use weir_clickhouse::Policy;
use weir_model::TenantId;
use weir_tests::{ClickHouse, Fixture, Postgres, Weir, seed};

const TABLES: &str =
    "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema() ORDER BY 1";

fn psql(url: &str, sql: &str) -> Output {
    let mut psql = Command::new("psql");
    psql.args(["--no-psqlrc", "-v", "ON_ERROR_STOP=1", "--csv", "--tuples-only", "-c", sql, "-d", url]);
    psql.output().expect("psql runs; install Debian's postgresql-client")
}

fn ask(url: &str, sql: &str) -> Vec<String> {
    let output = psql(url, sql);
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn refused(url: &str, sql: &str, part: &str) {
    let output = psql(url, sql);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && words.contains(part), "{sql}: {words}");
}

#[tokio::test]
async fn a_tenants_role_sees_its_rows_alone() {
    const ODD: &str = "O'Hara; DROP ROLE weir_owner";
    let (weir, fixture) = (Weir::new(), Fixture::new(60, seed("tenants")));
    for tenant in ["default", "school", ODD] {
        weir.ok(&["import", "oulad", fixture.arg(), "--tenant", tenant]);
    }
    let up = weir.up();
    weir.ok(&["sql", "SELECT 1"]);
    // A table of one's own, by a name that has to be quoted.
    let own = "CREATE TABLE \"Own notes\" (tenant text, note text); GRANT SELECT ON \"Own notes\" TO weir_reader, weir_owner; \
        CREATE TABLE not_for_weir (tenant text); GRANT SELECT ON not_for_weir TO weir_reader; \
        INSERT INTO \"Own notes\" VALUES ('school', 'a'), ('default', 'b')";
    weir.owner().await.batch_execute(own).await.unwrap();
    let grant = |tenant: &str| weir.json(&["tenant", "grant", tenant])["url"].as_str().unwrap().to_owned();
    let (school, odd) = (grant("school"), grant(ODD));
    let listed = weir.json(&["tenant", "list"]);
    let listed: Vec<_> = listed.as_array().unwrap().iter().map(|row| row["tenant"].as_str().unwrap()).collect();
    assert!(listed.len() == 2 && listed.contains(&"school") && listed.contains(&ODD), "{listed:?}");

    let everyone = up.postgres();
    let tables = ask(&school, TABLES);
    assert!(
        tables.len() > 8
            && ["user_read_model", "Own notes"].iter().all(|table| tables.iter().any(|name| name == table)),
        "{tables:?}"
    );
    for (url, tenant) in [(&school, "school"), (&odd, ODD)] {
        for table in tables.iter().map(|table| format!("\"{table}\"")) {
            let own = format!("SELECT count(*) FROM {table}");
            let name = tenant.replace('\'', "''");
            let of_all = ask(&everyone, &format!("SELECT count(*) FROM {table} WHERE tenant = '{name}'"));
            assert_eq!(ask(url, &own), of_all, "{table} of {tenant}");
            assert_eq!(ask(url, &format!("SELECT count(*) FROM {table} WHERE tenant <> '{name}'")), ["0"], "{table}");
        }
        assert_ne!(ask(url, "SELECT count(*) FROM user_read_model"), ["0"]);
    }
    // What fails on other tenants' rows tells nothing of them: it is not evaluated there.
    let leak = "SELECT count(*) FROM user_read_model WHERE CASE WHEN tenant <> 'school' THEN 1 / (length(tenant) * 0) ELSE 1 END = 1";
    assert_ne!(ask(&school, leak), ["0"]);
    for sql in [
        "SELECT count(*) FROM public.user_read_model",
        "SELECT * FROM public.events",
        "SELECT * FROM public.api_tokens",
        "SELECT * FROM pg_authid",
    ] {
        refused(&school, sql, "permission denied");
    }
    let others = ask(&odd, "SELECT current_schema()").remove(0);
    refused(&school, &format!("SELECT * FROM {others}.user_read_model"), "permission denied");
    // Also where a session takes the role's own setting back.
    let writing = format!("{school}&options=-c%20default_transaction_read_only%3Doff");
    refused(&writing, "DELETE FROM user_read_model", "permission denied");
    refused(&writing, "CREATE TABLE t (a int)", "permission denied");
    refused(&writing, "CREATE TEMP TABLE t (a int)", "permission denied");
    refused(&school, "SELECT pg_advisory_lock(1)", "permission denied");
    // In clear, the same address is no way in.
    refused(
        &school.replace("sslmode=require&channel_binding=require", "sslmode=disable"),
        "SELECT 1",
        "no pg_hba.conf entry",
    );

    // A new password ends the old one; revoking ends what is open, and other readers notice nothing.
    let again = grant("school");
    refused(&school, "SELECT 1", "password authentication failed");
    assert_eq!(ask(&again, TABLES), tables);
    weir.ok(&["tenant", "revoke", "school"]);
    // Of a role that is not there no one tells whether it ever was.
    refused(&again, "SELECT 1", "no pg_hba.conf entry");
    let output = weir.run(&["tenant", "revoke", "school"]);
    assert!(output.status.code() == Some(1) && String::from_utf8_lossy(&output.stderr).contains("weir tenant list"));
    assert_ne!(ask(&everyone, "SELECT count(*) FROM user_read_model WHERE tenant = 'school'"), ["0"]);
    assert_ne!(ask(&odd, "SELECT count(*) FROM user_read_model"), ["0"]);
    up.terminate();
}

/// The policies that a grant makes, as the users file of the tests' server has them: it keeps no users that SQL makes.
fn users_file(server: &ClickHouse, policies: &[Policy]) {
    let path = server.path().join("users.xml");
    let users = std::fs::read_to_string(&path).unwrap();
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;");
    let filters: String = policies
        .iter()
        .map(|Policy { table, filter }| format!("<{table}><filter>{}</filter></{table}>", escaped(filter)))
        .collect();
    let user = format!(
        "<school><password>school-8</password><networks><ip>127.0.0.1</ip></networks><profile>dashboards</profile><quota>default</quota>\
         <databases><weir>{filters}</weir></databases><grants><query>GRANT SELECT ON weir.*</query></grants></school></users>"
    );
    let manages = "<password>correct-horse-8</password><access_management>1</access_management>";
    let users = users.replace("<password>correct-horse-8</password>", manages);
    std::fs::write(path, users.replace("</users>", &user)).unwrap();
}

#[tokio::test]
async fn a_tenants_policies_in_clickhouse_leave_its_rows_alone() {
    const ODD: &str = "O'Hara \\' OR 1=1 --";
    let fixture = Fixture::new(60, seed("tenants_clickhouse"));
    let (postgres, mut server) = (Postgres::start(), ClickHouse::start());
    let weir = Weir::new().on(&postgres.url()).with_all(server.settings());
    for tenant in ["default", "school", ODD] {
        weir.ok(&["import", "oulad", fixture.arg(), "--tenant", tenant]);
    }
    weir.ok(&["up", "--until-caught-up"]);
    // Here the grant is half of one, and says which half, and what to do.
    let half = weir.run(&["tenant", "grant", "school"]);
    let words = String::from_utf8_lossy(&half.stderr).into_owned();
    for part in ["the role in Postgres is made, no user of ClickHouse", "grant clickhouse.user ACCESS MANAGEMENT"] {
        assert!(half.status.code() == Some(1) && words.contains(part), "{words}");
    }
    for tenant in ["school", ODD] {
        let policies = weir_clickhouse::ClickHouse::new(server.options());
        let policies = policies.policies(&TenantId::new(tenant.to_owned()).unwrap()).await.unwrap();
        assert!(policies.len() >= 5, "the events and four rollups: {policies:?}");
        server.kill();
        let users = server.path().join("users.xml");
        let before = std::fs::read_to_string(&users).unwrap();
        users_file(&server, &policies);
        server.start_again();
        let half = weir.run(&["tenant", "grant", "school"]);
        let words = String::from_utf8_lossy(&half.stderr).into_owned();
        assert!(half.status.code() == Some(1) && words.contains("it keeps users in its file alone"), "{words}");
        let name = tenant.replace('\\', "\\\\").replace('\'', "\\'");
        let views = ["events", "analytics_events"].map(str::to_owned).into_iter();
        for table in policies.into_iter().map(|policy| policy.table).chain(views) {
            let all = server.sql(&format!("SELECT count() FROM weir.{table} WHERE tenant = '{name}'")).await;
            let sql = format!("SELECT count(), countIf(tenant != '{name}') FROM weir.{table}");
            let own = server.ask("school", "school-8", &sql);
            assert_eq!(own.await.unwrap(), format!("{all}\t0"), "{table}");
            assert!(all != "0" || table == "executions_per_minute", "{table}");
            // All others see what they saw.
            let everyone = server.sql(&format!("SELECT uniqExact(tenant) FROM weir.{table}")).await;
            assert!(everyone == "3" || table == "executions_per_minute", "{table}: {everyone}");
        }
        std::fs::write(users, before).unwrap();
    }
}
