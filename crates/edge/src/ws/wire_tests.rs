//! The decoder against frames built by hand and against tungstenite.

use bytes::Bytes;
use proptest::prelude::*;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket};

use super::*;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client's frame with any first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let opcode = Opcode::Text;
    let mut out = FrameHead::new(opcode, payload.len()).as_bytes().to_vec();
    out[0] = first;
    out[1] |= 0x80;
    out.extend_from_slice(&KEY);
    out.extend(payload.iter().zip(KEY.iter().cycle()).map(|(a, b)| a ^ b));
    out
}

/// All that a decoder makes of these bytes, whatever the pieces they come in.
fn decode(bytes: &[u8]) -> Result<Vec<Event>, Violation> {
    let whole = decode_pieces(bytes, bytes.len().max(1));
    assert_eq!(decode_pieces(bytes, 1), whole);
    whole
}

fn decode_pieces(bytes: &[u8], size: usize) -> Result<Vec<Event>, Violation> {
    let mut decoder = Decoder::new(1_000);
    let mut events = Vec::new();
    for piece in bytes.chunks(size) {
        decoder.feed(piece);
        while let Some(event) = decoder.next()? {
            events.push(event);
        }
    }
    Ok(events)
}

fn text(text: &'static str) -> Event {
    Event::Text(Bytes::from_static(text.as_bytes()))
}

#[test]
fn the_examples_of_the_rfc() {
    let hello = [
        0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
    ];
    assert_eq!(decode(&hello), Ok(vec![text("Hello")]));
    let head = |payload| FrameHead::new(Opcode::Binary, payload);
    assert_eq!(head(5).as_bytes(), [0x82, 5]);
    assert_eq!(head(256).as_bytes(), [0x82, 0x7e, 0x01, 0x00]);
    let long = [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0];
    assert_eq!(head(65_536).as_bytes(), long);
}

#[test]
fn fragments_are_put_together_around_control_frames() {
    let bytes = [
        frame(0x01, "à".as_bytes().split_at(1).0),
        frame(0x89, b"ping"),
        frame(0x00, b""),
        frame(0x00, "à".as_bytes().split_at(1).1),
        frame(0x80, b"!"),
        frame(0x8a, b"whatever"),
        frame(0x82, &[0xff]),
    ]
    .concat();
    let events = vec![
        Event::Ping(Bytes::from_static(b"ping")),
        text("à!"),
        Event::Pong,
        Event::Binary(Bytes::from_static(&[0xff])),
    ];
    assert_eq!(decode(&bytes), Ok(events));
}

#[test]
fn whatever_breaks_the_protocol_is_refused() {
    let protocol = |bytes: &[u8]| matches!(decode(bytes), Err(Violation::Protocol(_)));
    for reserved in [0xc1, 0xa1, 0x91] {
        assert!(protocol(&frame(reserved, b"x")));
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert!(protocol(&frame(0x80 | opcode, b"x")));
    }
    assert!(protocol(&[0x81, 0x01, b'x']), "not masked");
    assert!(protocol(&frame(0x80, b"x")), "a continuation of nothing");
    let nested = [frame(0x01, b"a"), frame(0x01, b"b")].concat();
    assert!(protocol(&nested));
    assert!(protocol(&frame(0x09, b"x")), "a ping in fragments");
    assert!(protocol(&frame(0x89, &[b'x'; 126])), "a long ping");
    assert!(protocol(&frame(0x88, b"x")), "half a close code");
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000] {
        assert!(protocol(&frame(0x88, &code.to_be_bytes())), "{code}");
    }
}

#[test]
fn close_codes_are_read() {
    for code in [1000_u16, 1001, 1003, 1007, 1011, 1014, 3000, 4999] {
        let payload = [&code.to_be_bytes()[..], b"why"].concat();
        let event = Event::Close(Some(code));
        assert_eq!(decode(&frame(0x88, &payload)), Ok(vec![event]));
    }
    assert_eq!(decode(&frame(0x88, b"")), Ok(vec![Event::Close(None)]));
}

#[test]
fn text_that_is_not_utf8_is_refused_with_the_fragment_that_shows_it() {
    assert_eq!(decode(&frame(0x81, b"\xff")), Err(Violation::NotUtf8));
    assert_eq!(decode(&frame(0x81, b"\xc3")), Err(Violation::NotUtf8));
    let early = [frame(0x01, b"\xc3"), frame(0x00, b"x")].concat();
    assert_eq!(decode(&early), Err(Violation::NotUtf8));
    let cut = [frame(0x01, b"\xc3"), frame(0x80, b"")].concat();
    assert_eq!(decode(&cut), Err(Violation::NotUtf8));
    let reason = frame(0x88, b"\x03\xe8\xff");
    assert_eq!(decode(&reason), Err(Violation::NotUtf8));
}

#[test]
fn text_that_is_not_utf8_is_refused_before_its_frame_has_ended() {
    let text = [&b"Hello-\xc2\xb5@\xc3"[..], b"\xff", &[b'x'; 900]].concat();
    let bytes = frame(0x81, &text);
    // A header of four bytes, and a key of four.
    let bad = 8 + text.iter().position(|byte| *byte == 0xff).unwrap();
    for first in [1, 3, 8, 9, 10, 13, bad] {
        let mut decoder = Decoder::new(1_000);
        decoder.feed(&bytes[..first]);
        assert_eq!(decoder.next(), Ok(None), "{first}");
        decoder.feed(&bytes[first..bad]);
        assert_eq!(decoder.next(), Ok(None), "{first}");
        decoder.feed(&bytes[bad..=bad]);
        assert_eq!(decoder.next(), Err(Violation::NotUtf8), "{first}");
    }
}

#[test]
fn a_header_alone_takes_no_memory_for_what_it_declares() {
    const DECLARED: usize = 16 << 20;
    for opcode in [0x81, 0x82, 0x01, 0x02] {
        let mut decoder = Decoder::new(DECLARED);
        let head = FrameHead::new(Opcode::Binary, DECLARED);
        let mut bytes = head.as_bytes().to_vec();
        bytes[0] = opcode;
        bytes[1] |= 0x80;
        bytes.extend_from_slice(&KEY);
        bytes.extend_from_slice(&KEY);
        decoder.feed(&bytes);
        assert_eq!(decoder.next(), Ok(None));
        let taken = decoder.message.as_ref().map_or(0, |it| it.data.capacity());
        assert!(taken + decoder.held.capacity() < 1_024, "{taken}");
    }
}

#[test]
fn the_limit_is_of_a_message_and_known_from_its_header() {
    assert!(decode(&frame(0x82, &[0; 1_000])).is_ok());
    assert_eq!(
        decode(&frame(0x82, &[0; 1_001])[..4]),
        Err(Violation::TooLarge)
    );
    let huge = [0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(decode(&huge), Err(Violation::TooLarge));
    let fragments = [frame(0x02, &[0; 600]), frame(0x80, &[0; 401])].concat();
    assert_eq!(decode(&fragments), Err(Violation::TooLarge));
}

#[test]
fn nothing_is_held_when_nothing_is_unfinished() {
    let mut decoder = Decoder::new(1_000);
    decoder.feed(&frame(0x82, &[0; 900]));
    assert!(decoder.next().unwrap().is_some());
    assert!(decoder.next().unwrap().is_none());
    assert_eq!(decoder.held.capacity(), 0);
}

proptest! {
    /// What tungstenite writes as a client is what is read, and what is
    /// written as a server is what tungstenite reads.
    #[test]
    fn another_implementation_agrees(
        payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..1_000), 1..5),
        pieces in 1..2_000_usize,
    ) {
        let mut client = WebSocket::from_raw_socket(Pipe::default(), Role::Client, None);
        for payload in &payloads {
            client.send(Message::Binary(payload.clone().into())).unwrap();
        }
        let events = decode_pieces(&client.get_ref().written, pieces).unwrap();
        let expected: Vec<_> = payloads.iter().map(|it| Event::Binary(it.clone().into())).collect();
        prop_assert_eq!(events, expected);

        for payload in &payloads {
            let head = FrameHead::new(Opcode::Binary, payload.len());
            client.get_mut().to_read.extend(head.as_bytes());
            client.get_mut().to_read.extend(payload);
        }
        for payload in &payloads {
            prop_assert_eq!(client.read().unwrap(), Message::Binary(payload.clone().into()));
        }
    }

    /// Whatever comes, the decoder answers and goes on or ends.
    #[test]
    fn nothing_makes_it_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..4_000),
        pieces in 1..100_usize,
    ) {
        let _ = decode_pieces(&bytes, pieces);
    }
}

/// Memory that is written at one end and read at the other.
#[derive(Debug, Default)]
struct Pipe {
    written: Vec<u8>,
    to_read: std::collections::VecDeque<u8>,
}

impl std::io::Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl std::io::Read for Pipe {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        self.to_read.read(bytes)
    }
}
