//! From a URL to an open WebSocket.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Request};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::{ConnectError, ConnectOptions};

/// Read buffer of a connection. The library's 128 KiB would be what 10,000 idle connections consist of; a batch that is
/// longer is read in several steps.
const READ_BUFFER_BYTES: usize = 8 * 1024;

/// Longest frame that is taken. Edges stay under 1 MiB as long as services keep to the largest payload; four times
/// that also covers nats-server's largest message as base64.
const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;

pub(super) async fn open(
    url: &str,
    header_token: Option<&str>,
    options: &ConnectOptions,
) -> Result<WebSocketStream<TcpStream>, ConnectError> {
    let mut request = url
        .into_client_request()
        .map_err(|error| ConnectError::Url(error.to_string()))?;
    let (host, port) = host_and_port(&request)?;
    let headers = request.headers_mut();
    let subprotocol = HeaderValue::from_static(options.encoding.subprotocol());
    headers.insert("Sec-WebSocket-Protocol", subprotocol);
    if let Some(token) = header_token {
        let value = HeaderValue::try_from(format!("Bearer {token}"));
        let mut value = value.map_err(|_| ConnectError::Token)?;
        value.set_sensitive(true);
        headers.insert("Authorization", value);
    }
    let stream = dial(&host, port, options).await?;
    // Frames are written when they are complete; Nagle's algorithm would only hold them back.
    stream.set_nodelay(true)?;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX));
    match client_async_with_config(request, stream, Some(config)).await {
        Ok((socket, _response)) => Ok(socket),
        Err(Error::Http(response)) => Err(ConnectError::Http {
            status: response.status().as_u16(),
            body: response
                .body()
                .as_deref()
                .map(|body| String::from_utf8_lossy(body).into_owned())
                .unwrap_or_default(),
        }),
        Err(Error::Io(error)) => Err(error.into()),
        Err(error) => Err(ConnectError::Handshake(error.to_string())),
    }
}

fn host_and_port(request: &Request<()>) -> Result<(String, u16), ConnectError> {
    let uri = request.uri();
    if uri.scheme_str() != Some("ws") {
        let reason = "only ws:// is spoken; put a TLS proxy in front for wss://";
        return Err(ConnectError::Url(reason.to_owned()));
    }
    let host = uri.host().unwrap_or_default();
    // The brackets belong to the URL, not to the address.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok((host.to_owned(), uri.port_u16().unwrap_or(80)))
}

/// The first of the host's addresses that answers.
async fn dial(host: &str, port: u16, options: &ConnectOptions) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in lookup_host((host, port)).await? {
        match dial_one(address, options).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn dial_one(address: SocketAddr, options: &ConnectOptions) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(source) = options.source_ip {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.connect(address).await
}
