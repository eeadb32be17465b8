//! The memory of messages that are gone, for the next ones of the thread.

use std::cell::RefCell;

use super::List;

/// How many are kept though nobody uses them: as many as requests of one worker are usually under
/// way at once, with two messages each.
const KEPT_MAX: usize = 64;
/// What was larger, in bytes and in fields, was for an unusual message, and is not kept.
const BYTES_MAX: usize = 8 * 1024;
const FIELDS_MAX: usize = 64;
/// Room for a usual head and what is added to it.
const BYTES: usize = 1024;
const FIELDS: usize = 24;

thread_local! {
    #[expect(clippy::vec_box, reason = "a box is handed over as it is, and the list stays where it is")]
    static KEPT: RefCell<Vec<Box<List>>> = const { RefCell::new(Vec::new()) };
}

/// Without fields, but with room for some.
pub(super) fn take() -> Box<List> {
    KEPT.with_borrow_mut(Vec::pop).unwrap_or_else(|| {
        let (raw, list) = (Vec::with_capacity(BYTES), Vec::with_capacity(FIELDS));
        Box::new(List { raw, list, present: 0 })
    })
}

/// Takes over what is worth keeping.
pub(super) fn give_back(mut gone: Box<List>) {
    if gone.raw.capacity() > BYTES_MAX || gone.list.capacity() > FIELDS_MAX {
        return;
    }
    gone.raw.clear();
    gone.list.clear();
    gone.present = 0;
    // When the thread ends, there is nothing left to give it back to.
    let _ = KEPT.try_with(|kept| {
        let kept = &mut *kept.borrow_mut();
        if kept.len() < KEPT_MAX {
            kept.push(gone);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Fields, Name};

    #[test]
    fn what_comes_back_is_empty_and_what_is_kept_is_bounded() {
        let mut fields: Vec<_> = (0..2 * KEPT_MAX).map(|_| Fields::of_head(b"head")).collect();
        fields.iter_mut().for_each(|fields| fields.push(Name::Host, b"a"));
        fields.push(Fields::of_head(&[b'x'; 2 * BYTES_MAX]));
        drop(fields);
        assert_eq!(KEPT.with_borrow(Vec::len), KEPT_MAX);
        let next = Fields::of_head(b"");
        assert!(!next.contains(Name::Host) && next.lines().next().is_none());
        assert_eq!(KEPT.with_borrow(Vec::len), KEPT_MAX - 1);
    }
}
