//! Just enough of RFC 6455 for a client that trusts its server: whole, unmasked, unfragmented frames in, and frames
//! masked with the key 0 out, which leaves their payload as it is.

/// A frame's opcode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    Text,
    Close,
    Ping,
    Pong,
    Other,
}

impl Opcode {
    const fn from_byte(byte: u8) -> Self {
        match byte & 0x0f {
            1 => Self::Text,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => Self::Other,
        }
    }
}

/// The first frame in `bytes`: its opcode, where its payload starts, and where it ends. `None` while it is incomplete.
pub(crate) fn first(bytes: &[u8]) -> Option<(Opcode, usize, usize)> {
    let (&[head, length], rest) = bytes.split_first_chunk::<2>()?;
    let (start, length): (usize, usize) = match length & 0x7f {
        126 => {
            let (bytes, _) = rest.split_first_chunk::<2>()?;
            (4, usize::from(u16::from_be_bytes(*bytes)))
        }
        127 => {
            let (bytes, _) = rest.split_first_chunk::<8>()?;
            (10, usize::try_from(u64::from_be_bytes(*bytes)).ok()?)
        }
        short => (2, usize::from(short)),
    };
    let end = start.checked_add(length)?;
    (bytes.len() >= end).then_some((Opcode::from_byte(head), start, end))
}

/// Appends a masked text frame.
pub(crate) fn push_text(out: &mut Vec<u8>, payload: &[u8]) {
    push(out, 0x81, payload);
}

/// Appends a masked pong.
pub(crate) fn push_pong(out: &mut Vec<u8>, payload: &[u8]) {
    push(out, 0x8a, payload);
}

fn push(out: &mut Vec<u8>, head: u8, payload: &[u8]) {
    out.push(head);
    match payload.len() {
        length @ 0..126 => out.push(0x80 | length as u8),
        length @ 126..65_536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length_form_are_found() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let mut masked = Vec::new();
            push_text(&mut masked, &payload);
            // What a server sends is the same without the mask.
            let key = masked.len() - length - 4;
            let mut frame = masked;
            frame.drain(key..key + 4);
            frame[1] &= 0x7f;
            let (opcode, start, end) = first(&frame).expect("a frame");
            assert_eq!((opcode, end - start), (Opcode::Text, length));
            assert_eq!(first(&frame[..frame.len() - 1]), None);
        }
    }
}
