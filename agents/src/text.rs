//! Long texts made short, visibly.

/// The text, or its beginning and its end when it is longer than `most` bytes, and how much is missing between them.
pub fn shorten(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let head = text.floor_char_boundary(most / 2);
    let tail = text.ceil_char_boundary(text.len() - most / 2);
    format!("{}\n… {} bytes left out …\n{}", &text[..head], tail - head, &text[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_keeps_its_ends_and_says_what_is_missing() {
        assert_eq!(shorten("short", 5), "short");
        assert_eq!(shorten("äbcdefghij", 4), "ä\n… 7 bytes left out …\nij");
    }
}
