//! The roles of the embedded server: the one that weir works as, which is no superuser, and those who only read.

use std::io;

use postgres_protocol::password::scram_sha_256;
use tokio_postgres::NoTls;
use weir_postgres::locks;

use super::{OWNER, READER, Secrets, ServerError, io_error};

/// Connections that readers may hold together with each other: the server has 200.
const READERS_MAX: u32 = 40;

/// Makes the roles what they should be. `url` is the superuser's, who does nothing else.
pub(super) async fn set_up(url: &str, secrets: &Secrets) -> Result<(), ServerError> {
    let failed = |e: tokio_postgres::Error| io_error("setting up the server's roles")(io::Error::other(e));
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.map_err(failed)?;
    let driving = tokio::spawn(connection);
    let done = client.batch_execute(&statements(secrets)).await.map_err(failed);
    drop(client);
    drop(driving.await);
    done
}

/// Passwords stand in them as what a server keeps of one (RFC 5803), which lets no one in: statements that fail are logged.
fn statements(secrets: &Secrets) -> String {
    let verifier = |password: &str| scram_sha_256(password.as_bytes());
    let (owner, reader) = (verifier(&secrets.worker_password), verifier(&secrets.reader_password));
    // The process that was here before may be at its migrations, which grant what is altered here.
    let alone = locks::until_end(locks::MIGRATIONS);
    format!(
        "BEGIN; SET LOCAL log_min_error_statement = 'panic'; {alone}; \
         DO $$ DECLARE name text; BEGIN \
           FOREACH name IN ARRAY ARRAY['weir_reader', 'weir_workflows', '{OWNER}', '{READER}'] LOOP \
             IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN EXECUTE format('CREATE ROLE %I NOLOGIN', name); END IF; \
           END LOOP; END $$; \
         ALTER ROLE {OWNER} LOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION PASSWORD '{owner}'; \
         ALTER ROLE {READER} LOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION CONNECTION LIMIT {READERS_MAX} PASSWORD '{reader}'; \
         GRANT weir_reader TO {READER}; \
         GRANT weir_workflows TO {OWNER}; \
         ALTER ROLE {READER} SET default_transaction_read_only = on; \
         ALTER ROLE {READER} SET statement_timeout = '60s'; \
         ALTER ROLE {READER} SET idle_in_transaction_session_timeout = '60s'; \
         ALTER ROLE {READER} SET lock_timeout = '5s'; \
         ALTER ROLE {READER} SET temp_file_limit = '1GB'; \
         ALTER DATABASE postgres OWNER TO {OWNER}; \
         ALTER SCHEMA public OWNER TO {OWNER}; \
         REVOKE TEMPORARY ON DATABASE postgres FROM PUBLIC; \
         REVOKE ALL ON DATABASE template1 FROM PUBLIC; \
         REVOKE CREATE ON SCHEMA public FROM PUBLIC; \
         {HAND_OVER}; {REVOKE}; COMMIT"
    )
}

/// Gives schemas, tables, views and functions that earlier versions made as superuser to `weir_owner`.
const HAND_OVER: &str = "DO $$ DECLARE what record; BEGIN \
     FOR what IN SELECT n.oid::regnamespace AS name FROM pg_namespace n \
       WHERE n.nspname = 'weir_rebuild' AND n.nspowner = 'weir'::regrole LOOP \
       EXECUTE format('ALTER SCHEMA %s OWNER TO weir_owner', what.name); END LOOP; \
     FOR what IN SELECT c.oid::regclass AS name, c.relkind FROM pg_class c \
       WHERE c.relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('public', 'weir_rebuild')) \
         AND c.relkind IN ('r', 'v', 'm', 'p') AND c.relowner = 'weir'::regrole LOOP \
       EXECUTE format('ALTER TABLE %s OWNER TO weir_owner', what.name); END LOOP; \
     FOR what IN SELECT p.oid::regprocedure AS name FROM pg_proc p \
       WHERE p.pronamespace = 'public'::regnamespace AND p.proowner = 'weir'::regrole LOOP \
       EXECUTE format('ALTER ROUTINE %s OWNER TO weir_owner', what.name); END LOOP; END $$";

/// Takes functions away from readers: advisory locks, which could hold weir up, large objects, and `pg_notify`.
const REVOKE: &str = "DO $$ DECLARE f regprocedure; BEGIN \
     FOR f IN SELECT oid FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace \
       AND (proname ~ '^pg_(try_)?advisory_' OR proname ~ '^lo_' OR proname IN ('loread', 'lowrite', 'pg_notify')) \
       AND has_function_privilege('weir_reader', oid, 'EXECUTE') LOOP \
       EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f); \
       EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO weir_owner', f); END LOOP; END $$";
