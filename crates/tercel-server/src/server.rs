//! A server from its start to its end.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};
use tercel::host::HostError;
use tokio::sync::watch;

use crate::accept::{self, Stage};
use crate::app::{App, Shared};
use crate::config::{Config, Rate, ServedModel};
use crate::log::Log;
use crate::models::Models;
use crate::routes;

/// Threads of the server. The engines have their own, so these only move bytes.
const THREADS: usize = 2;
/// Connections that wait to be taken.
const BACKLOG: i32 = 1024;
/// How long a load that nobody waits for any more may hold up the end.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Models that answer at an address.
pub struct Server {
    app: Shared,
    listener: TcpListener,
    address: SocketAddr,
    stage: Arc<watch::Sender<Stage>>,
    tell: Tell,
}

type Tell = Arc<dyn Fn(Notice<'_>) + Send + Sync>;

/// What somebody who started a server by hand wants to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// A model that was to be there from the start is.
    ModelReady {
        /// Its name.
        model: &'a str,
    },
    /// It could not be loaded; requests for it say so, too.
    ModelFailed {
        /// Its name.
        model: &'a str,
        /// Why.
        message: &'a str,
    },
    /// The server ends once the requests that run have.
    Draining {
        /// How long they may take.
        grace: Duration,
    },
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Others could reach it, and nothing would ask who they are.
    #[error("refusing to listen on {address}, beyond this machine, without any key")]
    NoKeys {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// It cannot listen there.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Where it was to listen.
        address: SocketAddr,
        /// Why it cannot.
        source: io::Error,
    },
    /// A limit is out of range.
    #[error("`{field}` is {value}, must be {range}")]
    InvalidParameter {
        /// Its name.
        field: &'static str,
        /// What was given.
        value: String,
        /// What is accepted.
        range: &'static str,
    },
    /// The models cannot be served as they are named.
    #[error(transparent)]
    Models(#[from] HostError),
    /// The log cannot be written.
    #[error("cannot write the log: {0}")]
    Log(#[source] io::Error),
    /// The system gives no threads.
    #[error("cannot start the server's threads: {0}")]
    Threads(#[source] io::Error),
}

impl ServerError {
    /// The way out, in one line, where one is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoKeys { .. } => Some(
                "give it a key (`K_USER_1=<secret>` in the environment, or a file of keys), listen on \
                 127.0.0.1, or say that you mean it with `insecure`"
                    .into(),
            ),
            Self::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Some("another program listens there; use another port, or end it".into())
            }
            Self::Models(error) => error.hint(),
            _ => None,
        }
    }
}

impl Server {
    /// Takes the address; nobody is answered before [`Self::run`], and no model loaded.
    ///
    /// # Errors
    /// [`ServerError`]; among others where the address is reached from beyond this machine and there
    /// are no keys, unless the configuration says that this is meant.
    pub fn bind(config: Config, address: SocketAddr) -> Result<Self, ServerError> {
        let is_local = address.ip().to_canonical().is_loopback();
        if !is_local && config.keys.is_empty() && !config.insecure {
            return Err(ServerError::NoKeys { address });
        }
        check_rate("rates.client", config.rates.client)?;
        check_rate("rates.global", config.rates.global)?;
        let models = Models::new(&config)?;
        let log = Log::new(&config.log).map_err(ServerError::Log)?;
        let listen = || -> io::Result<_> {
            let listener = listener(address)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) =
            listen().map_err(|source| ServerError::Bind { address, source })?;
        let stage = Arc::new(watch::Sender::new(Stage::Serving));
        Ok(Self {
            app: Arc::new(App::new(config, models, log)),
            listener,
            address,
            stage,
            tell: Arc::new(|_| {}),
        })
    }

    /// Has notices told while the server runs, from one of its threads: it waits meanwhile.
    #[must_use]
    pub fn on_notice(mut self, tell: impl Fn(Notice<'_>) + Send + Sync + 'static) -> Self {
        self.tell = Arc::new(tell);
        self
    }

    /// Where it listens; the port is the one that was taken where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What ends it from elsewhere.
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(self.stage.clone())
    }

    /// Answers until a [`StopHandle`] says otherwise, and then until the requests that run have
    /// ended or the grace time has. Models that are to be there from the start load meanwhile. The
    /// process's soft limit of open files is raised where it is too low for the connections.
    ///
    /// # Errors
    /// [`ServerError::Threads`].
    pub fn run(self) -> Result<(), ServerError> {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime
            .worker_threads(THREADS)
            .thread_name("tercel-server")
            .enable_all();
        let runtime = runtime.build().map_err(ServerError::Threads)?;
        let Self {
            app,
            listener,
            address,
            stage,
            tell,
        } = self;
        let served: Vec<&str> = app
            .models
            .served()
            .iter()
            .map(|model| &*model.name)
            .collect();
        app.log.event(json!({
            "event": "server.started",
            "address": address.to_string(),
            "models": served,
            "keys": app.config.keys.len(),
        }));
        raise_file_limit(app.config.limits.connections);
        let result = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let loads = tokio::spawn(preload(app.clone(), tell.clone()));
            tokio::spawn(tell_of_the_end(
                stage.subscribe(),
                app.config.limits.grace,
                tell,
            ));
            if app.config.stop_on_sigterm {
                stop_on_sigterm(StopHandle(stage.clone()))?;
            }
            let router = routes::router(&app);
            accept::serve(listener, &app, &router, stage.subscribe()).await;
            loads.abort();
            io::Result::Ok(())
        });
        // Requests that were cut off say so in the log as they are dropped here.
        runtime.shutdown_timeout(LAST_WAIT);
        app.log.event(json!({ "event": "server.stopped" }));
        result.map_err(|source| ServerError::Bind { address, source })
    }
}

/// Ends a server from another thread, or from where a signal is handled.
#[derive(Clone, Debug)]
pub struct StopHandle(Arc<watch::Sender<Stage>>);

impl StopHandle {
    /// Lets the server end: it takes no new requests, and those that run may end within the grace
    /// time. A second call cuts these off.
    pub fn stop(&self) {
        self.0.send_modify(|stage| {
            *stage = match stage {
                Stage::Serving => Stage::Draining,
                Stage::Draining | Stage::Ending => Stage::Ending,
            }
        });
    }
}

/// Each connection takes two files. Where the system allows no more, those beyond wait to be taken.
#[cfg(unix)]
fn raise_file_limit(connections: usize) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    // Models, logs, and what the program has open beside the server.
    const OTHERS: u64 = 256;

    let wanted = (connections as u64)
        .saturating_mul(2)
        .saturating_add(OTHERS);
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(limit.maximum.map_or(wanted, |most| most.min(wanted)));
        // Refused, it stays as it was.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

#[cfg(not(unix))]
fn raise_file_limit(_: usize) {}

fn check_rate(field: &'static str, rate: Option<Rate>) -> Result<(), ServerError> {
    let Some(Rate {
        per_second,
        capacity,
    }) = rate
    else {
        return Ok(());
    };
    if per_second > 0.0 && per_second.is_finite() && capacity >= 1.0 && capacity.is_finite() {
        return Ok(());
    }
    let value = format!("{per_second} a second, {capacity} at once");
    let range = "more than 0 a second and at least 1 at once";
    Err(ServerError::InvalidParameter {
        field,
        value,
        range,
    })
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A server that was killed can be started again at once. Elsewhere it would share the port.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Ends the server with the signal by which systems end services.
#[cfg(unix)]
fn stop_on_sigterm(server: StopHandle) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut signals = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        while signals.recv().await.is_some() {
            server.stop();
        }
    });
    Ok(())
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "as where there are signals")]
fn stop_on_sigterm(_: StopHandle) -> io::Result<()> {
    Ok(())
}

/// Loads the models that are to be there from the start, one after the other: they share the
/// machine. Whether they are ready is theirs to tell; one that fails is in the log.
async fn preload(app: Shared, tell: Tell) {
    for ServedModel { name: model, .. } in app.models.served().iter().filter(|it| it.preload) {
        let event = match app.models.lease(model).await {
            Ok(_) => {
                tell(Notice::ModelReady { model });
                json!({ "event": "server.model_ready", "model": model })
            }
            Err(error) => {
                let message = &*error.message;
                tell(Notice::ModelFailed { model, message });
                json!({
                    "event": "server.model_failed",
                    "model": model,
                    "error": { "error_code": error.code, "error_message": message },
                })
            }
        };
        app.log.event(event);
    }
}

async fn tell_of_the_end(mut stage: watch::Receiver<Stage>, grace: Duration, tell: Tell) {
    accept::reached(&mut stage, Stage::Draining).await;
    tell(Notice::Draining { grace });
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;
    use crate::Role;

    fn quiet() -> Config {
        let mut config = Config::default();
        config.log.target = None;
        config
    }

    fn bind(config: Config, address: &str) -> Result<Server, ServerError> {
        Server::bind(config, address.parse().unwrap())
    }

    #[test]
    fn beyond_this_machine_only_with_keys_or_when_meant() {
        for address in ["0.0.0.0:0", "[::]:0", "10.1.2.3:0", "[::ffff:10.1.2.3]:0"] {
            let error = bind(quiet(), address).err().unwrap();
            assert!(
                matches!(error, ServerError::NoKeys { .. }),
                "{address}: {error}"
            );
            let hint = error.hint().unwrap();
            assert!(
                hint.contains("K_USER_1") && hint.contains("insecure"),
                "{hint}"
            );
        }
        for address in ["127.0.0.1:0", "127.0.0.2:0"] {
            assert_ne!(
                bind(quiet(), address).unwrap().address().port(),
                0,
                "{address}"
            );
        }
        assert!(
            bind(
                Config {
                    insecure: true,
                    ..quiet()
                },
                "0.0.0.0:0"
            )
            .is_ok()
        );
        let mut config = quiet();
        config
            .keys
            .insert("k_user_1", Role::User, "0123456789abcdef")
            .unwrap();
        assert!(bind(config, "0.0.0.0:0").is_ok());
    }

    #[test]
    fn a_taken_port_and_a_rate_that_lets_nothing_through_are_named() {
        let first = bind(quiet(), "127.0.0.1:0").unwrap();
        let error = Server::bind(quiet(), first.address()).err().unwrap();
        assert!(matches!(error, ServerError::Bind { address, .. } if address == first.address()));
        assert!(error.hint().unwrap().contains("another port"));
        for (per_second, capacity) in [(0.0, 1.0), (-1.0, 1.0), (f64::NAN, 1.0), (1.0, 0.5)] {
            let mut config = quiet();
            config.rates.global = Some(Rate {
                per_second,
                capacity,
            });
            let error = bind(config, "127.0.0.1:0").err().unwrap();
            assert!(
                error.to_string().starts_with("`rates.global` is "),
                "{error}"
            );
        }
    }

    #[test]
    fn it_answers_until_it_is_stopped_and_says_what_happens() {
        let mut config = quiet();
        config.models = vec![ServedModel::new("none", "./none.gguf", || {
            tercel::Engine::builder("./none.gguf")
        })];
        let (tell, told) = std::sync::mpsc::channel();
        let server = bind(config, "127.0.0.1:0")
            .unwrap()
            .on_notice(move |notice| tell.send(format!("{notice:?}")).unwrap());
        let (address, stop) = (server.address(), server.stop_handle());
        let running = std::thread::spawn(move || server.run());
        let mut client = TcpStream::connect(address).unwrap();
        client
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .unwrap();
        let mut head = [0; 15];
        client.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        let failed = told.recv().unwrap();
        assert!(
            failed.starts_with("ModelFailed") && failed.contains("none.gguf"),
            "{failed}"
        );
        // The connection is idle, so it does not hold up the end.
        stop.stop();
        running.join().unwrap().unwrap();
        assert_eq!(told.recv().unwrap(), "Draining { grace: 10s }");
        assert!(TcpStream::connect(address).is_err());
    }
}
