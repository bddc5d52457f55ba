//! A real Apache Kafka (KRaft) of the tests' own, of one broker or more. Its jars come from Maven Central into the user's
//! cache directory at first use.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::postgres::free_port;
use crate::tls::Certificates;

/// The password of `weir` on brokers that want one.
pub const PASSWORD: &str = "correct-horse-7";

const VERSION: &str = "4.1.1";
const PATIENCE: Duration = Duration::from_secs(90);

const POM: &str = r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion><groupId>weir</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>VERSION</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>VERSION</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.1</version></dependency>
  </dependencies>
</project>
"#;

const LOG4J: &str = "rootLogger.level=warn\nrootLogger.appenderRef.c.ref=c\nappender.c.type=Console\nappender.c.name=c\n\
     appender.c.layout.type=PatternLayout\nappender.c.layout.pattern=%d %p %m%n\n";

/// The classpath, fetched once.
fn jars() -> &'static PathBuf {
    static JARS: OnceLock<PathBuf> = OnceLock::new();
    JARS.get_or_init(|| {
        let dir = crate::cache().join("weir").join(format!("kafka-{VERSION}"));
        if !dir.join("complete").exists() {
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("pom.xml"), POM.replace("VERSION", VERSION)).unwrap();
            fs::write(dir.join("log4j2.properties"), LOG4J).unwrap();
            let output = Command::new("mvn")
                .args(["-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=libs"])
                .current_dir(&dir)
                .output()
                .expect("mvn runs; install Debian's maven and default-jre-headless");
            assert!(
                output.status.success(),
                "Kafka's jars cannot be had; see that Maven Central is reached:\n{}",
                String::from_utf8_lossy(&output.stdout)
            );
            fs::write(dir.join("complete"), "").unwrap();
        }
        dir
    })
}

/// One of Kafka's programs, by its main class.
#[must_use]
pub fn tool(main: &str) -> Command {
    let mut command = Command::new("java");
    // Small, and quick to start rather than quick in the end.
    command.args(["-Xmx384m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]);
    command.arg(format!("{}/libs/*", jars().display()));
    command.arg(format!("-Dlog4j2.configurationFile=file:{}/log4j2.properties", jars().display()));
    command.arg(main).stdin(Stdio::null());
    command
}

struct Broker {
    child: Option<Child>,
    port: u16,
    dir: PathBuf,
}

/// A running cluster; ends with it.
pub struct Kafka {
    brokers: Vec<Broker>,
    _dir: TempDir,
}

impl Kafka {
    /// One broker.
    #[must_use]
    pub fn start() -> Self {
        Self::start_cluster(1)
    }

    /// So many brokers, each of which is a controller too.
    #[must_use]
    pub fn start_cluster(count: usize) -> Self {
        Self::start_with(count, None, "", |_| ())
    }

    /// One broker that asks its access lists; where there is none everybody may do everything.
    #[must_use]
    pub fn start_with_acls() -> Self {
        let properties = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             allow.everyone.if.no.acl.found=true\n";
        Self::start_with(1, None, properties, |_| ())
    }

    /// One broker on the files of one that ended: `prepare` puts them where it is told.
    #[must_use]
    pub fn start_on(prepare: impl FnOnce(&Path)) -> Self {
        Self::start_with(1, None, "", prepare)
    }

    /// Where the first broker keeps its data.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.brokers[0].dir.join("data")
    }

    /// One broker that wants TLS and a password from everybody, PLAIN or SCRAM-SHA-512.
    #[must_use]
    pub fn start_secure(certificates: &Certificates) -> Self {
        Self::start_with(1, Some(certificates), "", |_| ())
    }

    fn start_with(count: usize, certificates: Option<&Certificates>, more: &str, prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::Builder::new().prefix("weir-kafka-").tempdir().unwrap();
        let ports: Vec<(u16, u16)> = (0..count).map(|_| (free_port(), free_port())).collect();
        let voters: Vec<String> =
            ports.iter().enumerate().map(|(n, (_, port))| format!("{}@127.0.0.1:{port}", n + 1)).collect();
        let replicas = count.min(3);
        let (mut cluster, mut prepare) = (Self { brokers: Vec::new(), _dir: dir }, Some(prepare));
        for (n, (port, controller)) in ports.iter().enumerate() {
            let dir = cluster._dir.path().join(format!("broker-{}", n + 1));
            fs::create_dir(&dir).unwrap();
            let properties = format!(
                "process.roles=broker,controller\nnode.id={}\ncontroller.quorum.voters={}\n\
                 listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
                 advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
                 listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\nlog.dirs={}\n\
                 offsets.topic.replication.factor={replicas}\noffsets.topic.num.partitions=4\n\
                 transaction.state.log.replication.factor={replicas}\ntransaction.state.log.num.partitions=4\n\
                 transaction.state.log.min.isr={}\ngroup.initial.rebalance.delay.ms=0\nauto.create.topics.enable=false\n\
                 broker.session.timeout.ms=6000\n{more}",
                n + 1,
                voters.join(","),
                dir.join("data").display(),
                replicas.min(2),
            );
            let properties = match certificates {
                Some(certificates) => secured(properties, &dir, *port, certificates),
                None => properties,
            };
            fs::write(dir.join("server.properties"), properties).unwrap();
            if let Some(prepare) = prepare.take() {
                prepare(&dir.join("data"));
            }
            if !dir.join("data/meta.properties").exists() {
                format(&dir.join("server.properties"), certificates.is_some());
            }
            cluster.brokers.push(Broker { child: None, port: *port, dir });
        }
        for n in 0..count {
            cluster.start_broker(n);
        }
        cluster.wait();
        cluster
    }

    /// `host:port`, comma-separated.
    #[must_use]
    pub fn brokers(&self) -> String {
        let addresses: Vec<String> = self.brokers.iter().map(|broker| format!("127.0.0.1:{}", broker.port)).collect();
        addresses.join(",")
    }

    /// The processes of the brokers that run.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.brokers.iter().filter_map(|broker| broker.child.as_ref().map(Child::id)).collect()
    }

    /// Starts a broker that was killed.
    pub fn start_broker(&mut self, n: usize) {
        let broker = &mut self.brokers[n];
        let log = fs::OpenOptions::new().create(true).append(true).open(broker.dir.join("kafka.log")).unwrap();
        let mut kafka = tool("kafka.Kafka");
        kafka.arg(broker.dir.join("server.properties")).stdout(log.try_clone().unwrap()).stderr(log);
        broker.child = Some(kafka.spawn().unwrap());
    }

    /// As `kill -9` does.
    pub fn kill_broker(&mut self, n: usize) {
        if let Some(mut child) = self.brokers[n].child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops every broker as an operator does, with its files in order.
    pub fn terminate(&mut self) {
        for broker in &mut self.brokers {
            if let Some(mut child) = broker.child.take() {
                rustix::process::kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
                child.wait().unwrap();
            }
        }
    }

    /// Waits until every broker that runs answers.
    pub fn wait(&mut self) {
        let started = Instant::now();
        for broker in &mut self.brokers {
            let Some(child) = &mut broker.child else { continue };
            let words = |dir: &Path| fs::read_to_string(dir.join("kafka.log")).unwrap_or_default();
            while std::net::TcpStream::connect(("127.0.0.1", broker.port)).is_err() {
                assert!(child.try_wait().unwrap().is_none(), "{}", words(&broker.dir));
                assert!(started.elapsed() < PATIENCE, "{}", words(&broker.dir));
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

/// Prepares the directory of a new broker.
fn format(properties: &Path, has_passwords: bool) {
    let mut format = tool("kafka.tools.StorageTool");
    format.args(["format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"]).arg(properties);
    if has_passwords {
        format.args(["--add-scram", &format!("SCRAM-SHA-512=[name=weir,password={PASSWORD}]")]);
    }
    let formatted = format.output().expect("java runs; install Debian's default-jre-headless");
    assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
}

/// A listener of its own for the broker itself; everybody else comes through TLS, with a password.
fn secured(properties: String, dir: &Path, port: u16, certificates: &Certificates) -> String {
    let keystore = dir.join("keystore.pem");
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();
    fs::write(&keystore, read(certificates.key()) + &read(certificates.certificate())).unwrap();
    let both = format!("INTERNAL://127.0.0.1:{},SASL_SSL://127.0.0.1:{port}", free_port());
    let properties = properties
        .replace(&format!("PLAINTEXT://127.0.0.1:{port}"), &both)
        .replace("listener.security", "inter.broker.listener.name=INTERNAL\nlistener.security")
        .replace("=PLAINTEXT:PLAINTEXT,CONTROLLER", "=INTERNAL:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER");
    let login = "org.apache.kafka.common.security";
    format!(
        "{properties}sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512\nssl.keystore.type=PEM\nssl.keystore.location={}\n\
         listener.name.sasl_ssl.plain.sasl.jaas.config={login}.plain.PlainLoginModule required user_weir=\"{PASSWORD}\";\n\
         listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={login}.scram.ScramLoginModule required;\n",
        keystore.display()
    )
}

impl Drop for Kafka {
    fn drop(&mut self) {
        for n in 0..self.brokers.len() {
            self.kill_broker(n);
        }
    }
}
