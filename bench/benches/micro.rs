//! The steps of a delivery, each by itself: `cargo bench -p bench`.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_main};
use delivery::reader::Reader;
use delivery::window::{ReadLimit, WindowState};
use delivery::{Entries, Entry, Message, encode_batch};
use protocol::{Channel, Cursor, Encoding, Epoch, MessageId, decode_client};

const EPOCH: Epoch = Epoch(1);
const LIMIT: ReadLimit = ReadLimit {
    messages: 256,
    bytes: 256 * 1024,
};

fn message(channel: &Channel, seq: u64) -> Message {
    Message {
        channel: channel.clone(),
        position: Cursor::new(EPOCH, seq),
        prev: 0,
        id: MessageId::parse("0199d1a5-7c1e-7c40-a3f5-2b6f0c9d8e71").ok(),
        kind: "chat".into(),
        sender: None,
        time_ms: 1_700_000_000_000,
        data: Bytes::from(format!("{{\"x\":\"{}\"}}", ".".repeat(192))),
        traceparent: None,
    }
}

fn room(number: usize) -> Channel {
    Channel::from_parts("room", &number.to_string()).expect("a channel")
}

/// A window of at most 8 MiB with `readers` in its first room.
fn window(readers: usize) -> WindowState<usize> {
    let mut window = WindowState::new(Cursor::new(EPOCH, 0), 8 << 20);
    for reader in 0..readers {
        window.register(&room(0), reader);
    }
    window
}

fn appending(c: &mut Criterion) {
    let mut group = c.benchmark_group("window append");
    let rooms: Vec<Channel> = (0..100).map(room).collect();
    for readers in [0, 1, 1_000] {
        let mut window = window(readers);
        let mut seq = 0;
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("{readers} readers woken"), |b| {
            b.iter_batched(
                || {
                    seq += 1;
                    // Without readers, to any room; else to theirs.
                    let place = if readers == 0 { seq as usize % 100 } else { 0 };
                    (message(&rooms[place], seq), seq)
                },
                |(message, seq)| window.append(vec![message], seq, |reader| _ = black_box(reader)),
                BatchSize::SmallInput,
            );
        });
    }
}

fn reading(c: &mut Criterion) {
    let mut window = window(1);
    for seq in 1..=1_000 {
        window.append(vec![message(&room(0), seq)], seq, |_| {});
    }
    let mut group = c.benchmark_group("reader step");
    for behind in [0_u64, 1, 20] {
        group.bench_function(format!("{behind} messages behind"), |b| {
            b.iter(|| {
                let mut reader = Reader::new(Cursor::new(EPOCH, 1_000 - behind));
                let mut out = Entries::new();
                black_box(reader.step(&room_0(), &window, LIMIT, &mut out));
                out
            });
        });
    }
}

fn room_0() -> Channel {
    thread_local! {
        static ROOM: Channel = room(0);
    }
    ROOM.with(Clone::clone)
}

fn encoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame");
    for encoding in Encoding::ALL {
        let name = encoding.subprotocol();
        group.bench_function(format!("{name}: encode a new message"), |b| {
            b.iter_batched(
                || Arc::new(Entry::new(message(&room(0), 1))),
                |entry| encode_batch(encoding, std::slice::from_ref(&entry)),
                BatchSize::SmallInput,
            );
        });
        let entries: Vec<_> = (1..=20)
            .map(|seq| Arc::new(Entry::new(message(&room(0), seq))))
            .collect();
        group.bench_function(
            format!("{name}: the frame of one that was sent before"),
            |b| {
                b.iter(|| encode_batch(encoding, &entries[..1]));
            },
        );
        let mut turn = 0;
        group.bench_function(format!("{name}: join 10 for one reader"), |b| {
            b.iter(|| {
                // Never the same twice in a row, so that none is remembered.
                turn = (turn + 1) % 10;
                encode_batch(encoding, &entries[turn..turn + 10])
            });
        });
        group.bench_function(format!("{name}: join 10 that were joined before"), |b| {
            b.iter(|| encode_batch(encoding, &entries[..10]));
        });
    }
    let publish = br#"{"req":4,"publish":{"id":"0199d1a5-7c1e-7c40-a3f5-2b6f0c9d8e71","channel":"room:1","type":"chat","data":{"text":"hi"}}}"#;
    group.bench_function("decode a publish", |b| {
        b.iter(|| decode_client(Encoding::Json, black_box(publish)));
    });
}

// A module of its own, as the macro makes a public function.
mod benches {
    criterion::criterion_group!(all, super::appending, super::reading, super::encoding);
}
criterion_main!(benches::all);
