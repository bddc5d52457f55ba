//! A real ClickHouse server for tests and the demo, without installing one: the npm package `@chdb/lib-linux-x64-gnu` has the
//! whole server in one library, listeners included. Fetched by `npm pack` into the user's cache directory at first use;
//! `WEIR_CHDB_LIB` names a `libchdb.so` that is there already.
//!
//! `weir-clickhouse-server DIR HTTP_PORT TCP_PORT` keeps its data in DIR and listens on loopback; port 0 takes a free one. The
//! line on stdout is its address, and tells that it starts; it answers `/ping` when it is up. With
//! `WEIR_END_WITH_STDIN` set it ends with its standard input; a kill ends it as a crash would.

use std::error::Error;
use std::ffi::{CString, c_char, c_int};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGE: &str = "@chdb/lib-linux-x64-gnu";
const VERSION: &str = "26.7.3-stable.1";

/// Starts the listeners; then a query that never ends keeps the server up.
const SERVE: &str = "SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP; SELECT count() FROM system.numbers \
     WHERE sleepEachRow(3) = 1 SETTINGS max_block_size = 1, max_execution_time = 0, function_sleep_max_microseconds_per_block = 0";

const CONFIG: &str = "<clickhouse>\n  <users_config>USERS</users_config>\n  <default_profile>default</default_profile>\n  \
     <mark_cache_size>67108864</mark_cache_size>\n  <max_server_memory_usage>2000000000</max_server_memory_usage>\n</clickhouse>\n";

/// `weir` may do everything; `dashboards` only reads, within limits.
const USERS: &str = include_str!("users.xml");

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, dir, http, tcp] = &arguments[..] else {
        return Err("usage: weir-clickhouse-server DIR HTTP_PORT TCP_PORT".into());
    };
    let (http, tcp) = (port(http)?, port(tcp)?);
    let dir = Path::new(dir);
    fs::create_dir_all(dir)?;
    let (config, users) = (dir.join("config.xml"), dir.join("users.xml"));
    if !users.exists() {
        fs::write(&users, USERS)?;
    }
    fs::write(&config, CONFIG.replace("USERS", &users.display().to_string()))?;
    let library = library()?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "http://127.0.0.1:{http}")?;
    stdout.flush()?;
    if std::env::var_os("WEIR_END_WITH_STDIN").is_some() {
        std::thread::spawn(|| {
            drop(std::io::stdin().read_to_end(&mut Vec::new()));
            std::process::exit(0);
        });
    }
    serve(
        &library,
        &[
            "clickhouse".to_owned(),
            format!("--path={}", dir.display()),
            format!("--http_port={http}"),
            format!("--tcp_port={tcp}"),
            "--listen_host=127.0.0.1".to_owned(),
            format!("--config-file={}", config.display()),
            "--query".to_owned(),
            SERVE.to_owned(),
        ],
    )
}

fn port(text: &str) -> Result<u16, Box<dyn Error>> {
    match text.parse()? {
        0 => Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port()),
        port => Ok(port),
    }
}

/// The library, fetched once.
fn library() -> Result<PathBuf, Box<dyn Error>> {
    if let Some(path) = std::env::var_os("WEIR_CHDB_LIB") {
        return Ok(path.into());
    }
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").ok_or("HOME is not set")?).join(".cache"),
    };
    let dir = cache.join("weir").join(format!("chdb-{VERSION}"));
    let library = dir.join("package/libchdb.so");
    if library.exists() {
        return Ok(library);
    }
    // Beside its place first: whoever comes meanwhile finds all of it or nothing.
    let making = dir.with_extension(format!("{}", std::process::id()));
    fs::create_dir_all(&making)?;
    let run = |program: &str, arguments: &[&str]| -> Result<(), Box<dyn Error>> {
        let output = Command::new(program).args(arguments).current_dir(&making).output();
        let output = output.map_err(|e| format!("{program}: {e}; install Debian's npm, or set WEIR_CHDB_LIB"))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(format!(
                "{PACKAGE} cannot be had; see that the npm registry is reached, or set WEIR_CHDB_LIB:\n{}",
                String::from_utf8_lossy(&output.stderr)
            )
            .into()),
        }
    };
    run("npm", &["pack", "--silent", &format!("{PACKAGE}@{VERSION}")])?;
    let archive = fs::read_dir(&making)?
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .find(|name| name.ends_with(".tgz"))
        .ok_or("npm packed nothing")?;
    run("tar", &["-xzf", &archive])?;
    fs::remove_file(making.join(archive))?;
    if fs::rename(&making, &dir).is_err() {
        // Someone else was quicker.
        fs::remove_dir_all(&making)?;
    }
    Ok(library)
}

/// Runs the server until the process ends.
fn serve(library: &Path, arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let arguments: Vec<CString> =
        arguments.iter().map(|argument| CString::new(argument.as_str())).collect::<Result<_, _>>()?;
    let mut pointers: Vec<*mut c_char> = arguments.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
    // SAFETY: the library's initialisers are those of a program of its own, and this process does nothing else. Both functions
    // have C linkage with these types (chdb.h), the arguments live until the call returns, and the library is never unloaded.
    let code = unsafe {
        let library = Box::leak(Box::new(libloading::Library::new(library)?));
        let set_handlers: libloading::Symbol<'_, unsafe extern "C" fn(c_int)> =
            library.get(b"chdb_set_signal_handlers_enabled\0")?;
        set_handlers(0);
        let run: libloading::Symbol<'_, unsafe extern "C" fn(c_int, *mut *mut c_char) -> c_int> =
            library.get(b"chdb_query_cmdline\0")?;
        run(c_int::try_from(pointers.len())?, pointers.as_mut_ptr())
    };
    Err(format!("the server ended: {code}").into())
}
