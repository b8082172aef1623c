//! A door for the fuzzers (crate `fuzz`): what reads what callers, planes and agents say of their work, as a function
//! of bytes. Nothing else goes through it.

/// A `traceparent`. What is not one says nothing; what is goes on to others, into headers and lines of logs, in the one
/// form that it has, and names what it named.
pub fn traceparent(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Some(context) = super::read(&text) else { return };
    let written = super::written(&context).expect("what was read has ids");
    let parts: Vec<_> = written.split('-').collect();
    let [version, trace, span, flags] = parts[..] else { panic!("{written:?}") };
    let is_hex = |text: &str, digits: usize| {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        text.len() == digits && text.bytes().all(digit)
    };
    assert!(version == "00" && is_hex(trace, 32) && is_hex(span, 16), "{written:?}");
    assert!(["00", "01"].contains(&flags), "{written:?}");
    assert!(text.contains(&format!("-{trace}-{span}-")), "{text:?} is not {written:?}");
    let again = super::read(&written).and_then(|context| super::written(&context));
    assert_eq!(again.as_ref(), Some(&written));
}
