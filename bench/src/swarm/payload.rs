//! What the measurements send: JSON of a fixed size that carries its number and when it was due.

use memchr::memmem::Finder;

/// Bytes of a message's payload, as in most published comparisons.
pub(crate) const PAYLOAD_BYTES: usize = 200;

const STAMP: &str = "{\"bt\":\"";
const NUMBER: &str = "\",\"n\":\"";
const REST: &str = "\",\"x\":\"";
const END: &str = "\"}";
const STAMP_DIGITS: usize = 20;
const NUMBER_DIGITS: usize = 10;

/// A payload that was due at `due_ns` of the swarm's clock.
pub(crate) fn payload(number: u32, due_ns: u64) -> String {
    let mut text = format!("{STAMP}{due_ns:020}{NUMBER}{number:010}{REST}");
    while text.len() < PAYLOAD_BYTES - END.len() {
        text.push('.');
    }
    text.push_str(END);
    text
}

/// Finds payloads in frames, whatever is around them.
pub(crate) struct Payloads {
    finder: Finder<'static>,
}

impl Payloads {
    pub(crate) fn new() -> Self {
        Self {
            finder: Finder::new(STAMP),
        }
    }

    /// Calls `found` with number and due time of every payload in a frame. Returns how many there were.
    pub(crate) fn each(&self, mut bytes: &[u8], mut found: impl FnMut(u32, u64)) -> usize {
        let mut count = 0;
        while let Some(at) = self.finder.find(bytes) {
            bytes = &bytes[at + STAMP.len()..];
            let Some(stamp) = bytes.get(..STAMP_DIGITS) else {
                break;
            };
            let from = STAMP_DIGITS + NUMBER.len();
            let Some(number) = bytes.get(from..from + NUMBER_DIGITS) else {
                break;
            };
            count += 1;
            found(decimal(number) as u32, decimal(stamp));
        }
        count
    }
}

fn decimal(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |sum, digit| {
        sum * 10 + u64::from(digit.wrapping_sub(b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_payload_of_a_frame_is_found() {
        let (first, second) = (payload(7, 1_234_567_890_123), payload(u32::MAX, 0));
        assert_eq!(first.len(), PAYLOAD_BYTES);
        let frame = format!("{{\"messages\":[{{\"data\":{first}}},{{\"data\":{second}}}]}}");
        let mut found = Vec::new();
        let count = Payloads::new().each(frame.as_bytes(), |n, due| found.push((n, due)));
        assert_eq!(count, 2);
        assert_eq!(found, [(7, 1_234_567_890_123), (u32::MAX, 0)]);
    }
}
