//! Looks a request over before the codec decodes it: the codec reserves memory for as many items as a length announces.

use bytes::Buf;

/// Items of all lists of a request together; ordinary clients send few.
const ITEMS: usize = 20_000;

/// A part of a request, in the encoding of the versions that are not "flexible".
pub(crate) enum Field {
    /// So many bytes.
    Fixed(usize),
    /// A length of two bytes, and as many; -1 is none.
    Text,
    /// A length of four bytes, and as many; -1 is none.
    Blob,
    /// A number in four bytes, and as many times these fields; -1 is none.
    List(&'static [Field]),
    /// Is there from this version on.
    Since(i16, &'static Field),
}

/// Whether a request consists of its fields, and its lists are of a bearable length.
pub(crate) fn check(request: &[u8], fields: &[Field], version: i16) -> Option<()> {
    let (mut rest, mut items) = (request, 0);
    fields.iter().try_for_each(|field| walk(&mut rest, field, version, &mut items))
}

/// Skips a text at the beginning.
pub(crate) fn skip_text(buf: &mut impl Buf) -> Option<()> {
    let length = buf.try_get_i16().ok()?;
    skip(buf, length.into())
}

fn walk(rest: &mut &[u8], field: &Field, version: i16, items: &mut usize) -> Option<()> {
    match field {
        Field::Fixed(length) => skip(rest, i64::try_from(*length).ok()?),
        Field::Text => skip_text(rest),
        Field::Blob => {
            let length = rest.try_get_i32().ok()?;
            skip(rest, length.into())
        }
        Field::List(fields) => {
            for _ in 0..rest.try_get_i32().ok()? {
                *items += 1;
                if *items > ITEMS {
                    return None;
                }
                fields.iter().try_for_each(|field| walk(rest, field, version, items))?;
            }
            Some(())
        }
        Field::Since(first, field) if version >= *first => walk(rest, field, version, items),
        Field::Since(..) => Some(()),
    }
}

fn skip(buf: &mut impl Buf, length: i64) -> Option<()> {
    let length = if length == -1 { 0 } else { usize::try_from(length).ok()? };
    if length > buf.remaining() {
        return None;
    }
    buf.advance(length);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPICS: &[Field] = &[Field::List(&[Field::Text, Field::Since(2, &Field::List(&[Field::Fixed(4)]))])];

    #[test]
    fn a_list_that_announces_more_than_is_there_is_refused() {
        let honest = [0, 0, 0, 1, 0, 1, b'a'];
        assert!(check(&honest, TOPICS, 1).is_some());
        assert!(check(&honest, TOPICS, 2).is_none(), "the inner list is missing");
        assert!(check(&[0x7f, 0xff, 0xff, 0xff, 0, 1, b'a'], TOPICS, 1).is_none());
        assert!(check(&[0xff, 0xff, 0xff, 0xff], TOPICS, 1).is_some(), "no list");
        assert!(check(&[0, 0, 0, 1, 0xff, 0xfe], TOPICS, 1).is_none(), "a negative length");
        let mut many = 4_000_000_u32.to_be_bytes().to_vec();
        many.resize(8_000_004, 0);
        assert!(check(&many, TOPICS, 1).is_none(), "more items than anybody needs");
    }
}
