//! Export of traces by OTLP over HTTP, set up by OpenTelemetry's own variables of the environment.
//!
//! Off unless `OTEL_TRACES_EXPORTER=otlp`, or an endpoint is named (`OTEL_EXPORTER_OTLP_ENDPOINT`,
//! `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`); off in any case by `OTEL_SDK_DISABLED=true` or
//! `OTEL_TRACES_EXPORTER=none`. Headers, timeout, sampler, batches, service name and resource
//! attributes come from their variables as well.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper_rustls::HttpsConnectorBuilder;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tracing::{Subscriber, info, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use super::trace::TARGET;

/// How long an export may take unless the environment says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end of a program may wait for the last spans.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Kept for the end of the process.
static PROVIDER: Mutex<Option<SdkTracerProvider>> = Mutex::new(None);

/// The layer that makes spans of traces, if the environment asks for it.
pub(super) fn start<S>(service: &'static str) -> Result<Option<impl Layer<S>>, String>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    if !is_wanted()? {
        return Ok(None);
    }
    let exporter = SpanExporter::builder().with_http().with_http_client(Exporter::new()?);
    let exporter = exporter.build().map_err(|error| error.to_string())?;
    let provider = SdkTracerProvider::builder()
        .with_resource(resource(service))
        .with_batch_exporter(exporter)
        .build();
    let tracer = provider.tracer("cipherscore");
    *PROVIDER.lock() = Some(provider);
    let spans = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false);
    // Log lines stay log lines.
    Ok(Some(spans.with_filter(filter_fn(|metadata| metadata.target() == TARGET))))
}

/// Sends what is left.
pub(super) fn stop() {
    let provider = PROVIDER.lock().take();
    if let Some(provider) = provider {
        // A collector that is away was warned of.
        let _ = provider.shutdown_with_timeout(STOP_TIMEOUT);
    }
}

/// A variable that is there and not empty, which OpenTelemetry counts as not there.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn endpoint() -> Option<String> {
    variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        .or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"))
}

fn is_wanted() -> Result<bool, String> {
    let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true"));
    let wanted = match variable("OTEL_TRACES_EXPORTER").as_deref() {
        _ if disabled => false,
        None => endpoint().is_some(),
        Some("otlp") => true,
        Some("none") => false,
        Some(_) => return Err("OTEL_TRACES_EXPORTER must be otlp or none".into()),
    };
    let protocol = variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        .or_else(|| variable("OTEL_EXPORTER_OTLP_PROTOCOL"));
    match protocol.as_deref() {
        Some(other) if wanted && other != "http/protobuf" => {
            Err("of OTEL_EXPORTER_OTLP_PROTOCOL only http/protobuf is supported".into())
        }
        _ => Ok(wanted),
    }
}

fn resource(service: &'static str) -> Resource {
    let named = variable("OTEL_SERVICE_NAME").is_some()
        || variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|all| all.contains("service.name="));
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder().with_attribute(version);
    match named {
        true => resource.build(),
        false => resource.with_service_name(service).build(),
    }
}

/// hyper on a runtime of its own: spans are exported by a thread that belongs to none, also while
/// the program's runtime ends.
#[derive(Debug)]
struct Exporter {
    client: Box<dyn HttpClient>,
    runtime: Runtime,
    /// The last export failed, and somebody was told.
    failing: AtomicBool,
}

impl Exporter {
    fn new() -> Result<Self, String> {
        let timeout = variable("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")
            .or_else(|| variable("OTEL_EXPORTER_OTLP_TIMEOUT"))
            .and_then(|millis| millis.parse().ok())
            .map_or(TIMEOUT, Duration::from_millis);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let client = client(timeout).map_err(|error| error.to_string())?;
        Ok(Self { client, runtime, failing: AtomicBool::new(false) })
    }
}

fn client(timeout: Duration) -> io::Result<Box<dyn HttpClient>> {
    if !endpoint().is_some_and(|endpoint| endpoint.starts_with("https:")) {
        return Ok(Box::new(HyperClient::with_default_connector(timeout, None)));
    }
    // Named, since with two providers in a program rustls would choose none.
    let tls = HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(rustls::crypto::ring::default_provider())?
        .https_only()
        .enable_http1()
        .build();
    Ok(Box::new(HyperClient::new(tls, timeout, None)))
}

impl HttpClient for Exporter {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let sent = self.runtime.block_on(self.client.send_bytes(request));
        let refused = match &sent {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(response.status().to_string()),
            Err(error) => Some(error.to_string()),
        };
        match refused {
            Some(reason) if !self.failing.swap(true, Ordering::Relaxed) => {
                warn!(reason, "traces cannot be exported");
            }
            None if self.failing.swap(false, Ordering::Relaxed) => {
                info!("traces are exported again")
            }
            _ => {}
        }
        Box::pin(std::future::ready(sent))
    }
}
