//! Whether this process is alive and ready, and how its loops and dependencies are: `/livez`, `/readyz`, `/health`, `/metrics`.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bus::consume::Vitals;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Reader, metrics};

/// Where it answers.
const PATHS: [&str; 4] = ["/livez", "/readyz", "/health", "/metrics"];
/// Between two checks of a dependency.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// A check that takes longer has failed.
const CHECK_WITHIN: Duration = Duration::from_secs(2);

/// How this process is. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Health(Arc<Inner>);

struct Inner {
    shutdown: CancellationToken,
    tasks: TaskTracker,
    silence: Duration,
    loops: Mutex<Vec<Vitals>>,
    conditions: Mutex<Vec<Condition>>,
    dependencies: Mutex<Vec<Arc<Dependency>>>,
}

struct Condition {
    missing: &'static str,
    is_met: Box<dyn Fn() -> bool + Send + Sync>,
}

/// Whether this process is ready while a dependency is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It is not.
    Required,
    /// It is: work goes on or waits, and `/health` shows it.
    Optional,
}

/// A dependency, and how it answered last.
pub(crate) struct Dependency {
    pub(crate) name: &'static str,
    need: Need,
    last: Mutex<Option<Answer>>,
}

/// How a dependency answered.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) result: Result<(), String>,
    pub(crate) latency: Duration,
    at: Instant,
}

impl Dependency {
    pub(crate) fn last(&self) -> Option<Answer> {
        lock(&self.last).clone()
    }

    /// What keeps the process from being ready.
    fn missing(&self) -> Option<String> {
        match (self.need, self.last()) {
            (Need::Optional, _) | (_, Some(Answer { result: Ok(()), .. })) => None,
            (_, None) => Some(format!("{}: not checked yet", self.name)),
            (_, Some(Answer { result: Err(error), .. })) => Some(format!("{}: {error}", self.name)),
        }
    }

    fn note(&self, answer: Answer) {
        let before = lock(&self.last).replace(answer.clone());
        let was_up = before.is_none_or(|b| b.result.is_ok());
        match answer.result {
            Err(error) if was_up => tracing::warn!(dependency = self.name, error, "does not answer"),
            Ok(()) if !was_up => tracing::info!(dependency = self.name, "answers again"),
            _ => {}
        }
    }
}

/// The setting `admin.silence`.
pub(crate) fn silence(r: &mut Reader<'_>) -> Duration {
    r.duration_within("admin.silence", Duration::from_secs(5)..=Duration::from_secs(3600))
}

impl Health {
    /// Of a process that ends with `shutdown`; the checks of dependencies run on `tasks` until then. A consume loop that is
    /// silent for longer than `silence` hangs, and only a restart helps.
    pub fn new(shutdown: CancellationToken, tasks: TaskTracker, silence: Duration) -> Self {
        Self(Arc::new(Inner {
            shutdown,
            tasks,
            silence,
            loops: Mutex::default(),
            conditions: Mutex::default(),
            dependencies: Mutex::default(),
        }))
    }

    /// Watches a consume loop: alive while it goes round, ready when it has joined its group.
    pub fn register(&self, vitals: Vitals) {
        lock(&self.0.loops).push(vitals);
    }

    /// Not ready until `is_met`; `missing` says in words what is missing.
    pub fn register_condition(&self, missing: &'static str, is_met: impl Fn() -> bool + Send + Sync + 'static) {
        lock(&self.0.conditions).push(Condition { missing, is_met: Box::new(is_met) });
    }

    /// Checks a dependency now and every two seconds, in the background: a request for health never waits for it.
    pub fn register_dependency<C, F>(&self, name: &'static str, need: Need, check: C)
    where
        C: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), String>> + Send,
    {
        let dependency = Arc::new(Dependency { name, need, last: Mutex::default() });
        lock(&self.0.dependencies).push(Arc::clone(&dependency));
        let shutdown = self.0.shutdown.clone();
        self.0.tasks.spawn(async move {
            let mut ticks = interval(CHECK_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let checks = async {
                loop {
                    ticks.tick().await;
                    let begun = Instant::now();
                    let result = timeout(CHECK_WITHIN, check()).await;
                    let result = result.unwrap_or_else(|_| Err(format!("no answer within {CHECK_WITHIN:?}")));
                    dependency.note(Answer { result, latency: begun.elapsed(), at: Instant::now() });
                }
            };
            shutdown.run_until_cancelled(checks).await
        });
    }

    /// Answers `/livez`, `/readyz`, `/health` and `/metrics`.
    pub fn routes(&self) -> Router {
        let [alive, ready, all, metrics] = PATHS;
        Router::new()
            .route(alive, get(livez))
            .route(ready, get(readyz))
            .route(all, get(health))
            .route(metrics, get(metrics_text))
            .with_state(self.clone())
    }

    /// The loops that hang.
    fn silent(&self) -> Vec<String> {
        let is_silent = |v: &&Vitals| v.silent_for() > self.0.silence;
        lock(&self.0.loops).iter().filter(is_silent).map(|v| v.name().to_owned()).collect()
    }

    /// Everything that this process lacks to be ready.
    fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if self.0.shutdown.is_cancelled() {
            missing.push("shutting down".to_owned());
        }
        missing.extend(lock(&self.0.conditions).iter().filter(|c| !(c.is_met)()).map(|c| c.missing.to_owned()));
        let loops = self.loops();
        let outside = loops.iter().filter(|v| !v.is_joined());
        missing.extend(outside.map(|v| format!("{}: has not joined its group", v.name())));
        let troubled = loops.iter().filter(|v| v.is_troubled());
        missing.extend(troubled.map(|v| format!("{}: records wait for something that is down", v.name())));
        missing.extend(self.dependencies().iter().filter_map(|d| d.missing()));
        missing
    }

    /// What `/readyz` says.
    pub fn is_ready(&self) -> bool {
        self.missing().is_empty()
    }

    /// The consume loops of this process, as they are now.
    pub fn loops(&self) -> Vec<Vitals> {
        lock(&self.0.loops).clone()
    }

    pub(crate) fn dependencies(&self) -> Vec<Arc<Dependency>> {
        lock(&self.0.dependencies).clone()
    }
}

/// 200 or 503, and why. It never looks at a dependency: no restart brings Kafka back.
async fn livez(State(health): State<Health>) -> Response {
    let silent = health.silent();
    (status(silent.is_empty()), Json(json!({ "alive": silent.is_empty(), "silent": silent }))).into_response()
}

async fn readyz(State(health): State<Health>) -> Response {
    let missing = health.missing();
    (status(missing.is_empty()), Json(json!({ "ready": missing.is_empty(), "missing": missing }))).into_response()
}

/// For people; always 200.
async fn health(State(health): State<Health>) -> Response {
    let dependencies = health.dependencies();
    let dependencies = dependencies.iter().map(|d| match d.last() {
        None => json!({ "name": d.name, "state": "unknown" }),
        Some(last) => json!({
            "name": d.name,
            "state": if last.result.is_ok() { "up" } else { "down" },
            "required": d.need == Need::Required,
            "latency_ms": milliseconds(last.latency),
            "checked_ms_ago": milliseconds(last.at.elapsed()),
            "error": last.result.err(),
        }),
    });
    let loops = health.loops();
    let loops = loops.iter().map(|v| {
        json!({
            "name": v.name(),
            "joined": v.is_joined(),
            "silent_ms": milliseconds(v.silent_for()),
            "assigned": v.assigned(),
            "in_flight": v.in_flight(),
            "waiting": v.waiting(),
            "troubled": v.is_troubled(),
            "oldest_ms": v.oldest().map(milliseconds),
        })
    });
    let missing = health.missing();
    Json(json!({
        "alive": health.silent().is_empty(),
        "ready": missing.is_empty(),
        "missing": missing,
        "dependencies": dependencies.collect::<Vec<_>>(),
        "loops": loops.collect::<Vec<_>>(),
    }))
    .into_response()
}

async fn metrics_text(State(health): State<Health>) -> Response {
    match metrics::text(&health) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn status(ok: bool) -> StatusCode {
    if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// With a resolution of a microsecond.
fn milliseconds(span: Duration) -> f64 {
    span.as_micros() as f64 / 1000.0
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
