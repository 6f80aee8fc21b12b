//! Messages on a stream: each stands behind its length, in two bytes (RFC 1035 section 4.2.2).

/// Bytes of a length.
const LENGTH: usize = 2;

/// Leaves room for the length of a message that is written next. Gives where it stands, for
/// [`end_frame`].
pub fn begin_frame(out: &mut Vec<u8>) -> usize {
    let begin = out.len();
    out.extend_from_slice(&[0; LENGTH]);
    begin
}

/// Puts the length before a message that has been written. `None` if there is no message, or it is longer
/// than any may be: then nothing of it is left.
pub fn end_frame(out: &mut Vec<u8>, begin: usize) -> Option<()> {
    let written = out.len().saturating_sub(begin + LENGTH);
    let length = u16::try_from(written).ok().filter(|length| *length > 0);
    let place = out.get_mut(begin..begin + LENGTH);
    if let (Some(length), Some(place)) = (length, place) {
        place.copy_from_slice(&length.to_be_bytes());
        return Some(());
    }
    out.truncate(begin);
    None
}

/// The first message of what has come of a stream, if it has come whole, and what follows it.
pub fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH>()?;
    rest.split_at_checked(u16::from_be_bytes(*length).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_as_they_went_in() {
        let mut out = Vec::new();
        for message in [&b"one"[..], b"two and more"] {
            let begin = begin_frame(&mut out);
            out.extend_from_slice(message);
            assert_eq!(end_frame(&mut out, begin), Some(()));
        }
        let (first, rest) = split_frame(&out).expect("a message");
        let (second, rest) = split_frame(rest).expect("another one");
        assert_eq!(
            (first, second, rest),
            (&b"one"[..], &b"two and more"[..], &b""[..])
        );
        for length in 0..5 {
            assert_eq!(split_frame(&out[..length]), None, "{length} bytes of it");
        }
    }

    #[test]
    fn what_is_no_message_leaves_nothing() {
        let mut out = b"before".to_vec();
        let begin = begin_frame(&mut out);
        assert_eq!(end_frame(&mut out, begin), None, "empty");
        let begin = begin_frame(&mut out);
        out.resize(out.len() + 65_536, 0);
        assert_eq!(end_frame(&mut out, begin), None, "too long");
        assert_eq!(out, b"before");
    }
}
