//! How large a gzip stream is when unpacked: its codes are followed (RFC 1951), nothing is written.

/// Bytes before the optional fields of a gzip header.
const HEAD: usize = 10;
const LONGEST: usize = 15;
/// What the codes 257 to 285 copy at least.
const LENGTHS: [usize; 29] =
    [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258];
/// How many more bits say how much beyond that.
const MORE: [u32; 29] = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
/// The order in which the lengths of the code of lengths come.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// The size of the first member; no more than a little beyond `limit` is followed. `None`: it is torn.
pub(crate) fn size(gzip: &[u8], limit: usize) -> Option<usize> {
    let mut bits = Bits { data: body(gzip)?, hold: 0, count: 0 };
    let mut size = 0;
    loop {
        let last = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => size += bits.stored()?,
            1 => follow(&mut bits, &fixed()?, &mut size, limit)?,
            2 => {
                let codes = dynamic(&mut bits)?;
                follow(&mut bits, &codes, &mut size, limit)?;
            }
            _ => return None,
        }
        if last || size > limit {
            return Some(size);
        }
    }
}

/// What comes after the header.
fn body(gzip: &[u8]) -> Option<&[u8]> {
    let (head, mut rest) = gzip.split_at_checked(HEAD)?;
    if head[..3] != [0x1f, 0x8b, 8] {
        return None;
    }
    let flags = head[3];
    if flags & 0x04 != 0 {
        let length = u16::from_le_bytes([*rest.first()?, *rest.get(1)?]);
        rest = rest.get(2 + usize::from(length)..)?;
    }
    for text in [0x08, 0x10] {
        if flags & text != 0 {
            let end = rest.iter().position(|byte| *byte == 0)?;
            rest = &rest[end + 1..];
        }
    }
    rest.get(if flags & 0x02 == 0 { 0 } else { 2 }..)
}

struct Bits<'a> {
    data: &'a [u8],
    hold: u32,
    count: u32,
}

impl Bits<'_> {
    /// The next bits, 16 at most.
    fn take(&mut self, wanted: u32) -> Option<usize> {
        while self.count < wanted {
            let (byte, rest) = self.data.split_first()?;
            self.data = rest;
            self.hold |= u32::from(*byte) << self.count;
            self.count += 8;
        }
        let value = self.hold & ((1 << wanted) - 1);
        self.hold >>= wanted;
        self.count -= wanted;
        usize::try_from(value).ok()
    }

    /// The length of a block that is not compressed, which is skipped.
    fn stored(&mut self) -> Option<usize> {
        (self.hold, self.count) = (0, 0);
        let (length, _complement) = (self.take(16)?, self.take(16)?);
        self.data = self.data.get(length..)?;
        Some(length)
    }
}

/// A Huffman code: how many codes there are of each length, and their symbols in order.
struct Code {
    counts: [usize; LONGEST + 1],
    symbols: Vec<usize>,
}

impl Code {
    fn new(lengths: &[usize]) -> Option<Self> {
        let mut counts = [0; LONGEST + 1];
        lengths.iter().for_each(|length| counts[*length] += 1);
        // more codes than there is room for
        let mut left = 1_usize;
        for count in &counts[1..] {
            left = (2 * left).checked_sub(*count)?;
        }
        let mut symbols: Vec<usize> = (0..lengths.len()).filter(|symbol| lengths[*symbol] > 0).collect();
        symbols.sort_by_key(|symbol| lengths[*symbol]);
        Some(Self { counts, symbols })
    }

    fn next(&self, bits: &mut Bits<'_>) -> Option<usize> {
        let (mut code, mut first, mut index) = (0, 0, 0);
        for count in &self.counts[1..] {
            code |= bits.take(1)?;
            if code < first + count {
                return self.symbols.get(index + code - first).copied();
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }
}

/// The codes of a block: of literals and lengths, and of distances.
type Codes = (Code, Code);

fn fixed() -> Option<Codes> {
    let length = |symbol| match symbol {
        0..144 => 8,
        144..256 => 9,
        256..280 => 7,
        _ => 8,
    };
    let lengths: Vec<usize> = (0..288).map(length).collect();
    Some((Code::new(&lengths)?, Code::new(&[5; 30])?))
}

fn dynamic(bits: &mut Bits<'_>) -> Option<Codes> {
    let (literals, distances) = (bits.take(5)? + 257, bits.take(5)? + 1);
    let mut lengths = [0; 19];
    for at in ORDER.iter().take(bits.take(4)? + 4) {
        lengths[*at] = bits.take(3)?;
    }
    let code = Code::new(&lengths)?;
    let mut lengths: Vec<usize> = Vec::with_capacity(literals + distances);
    while lengths.len() < literals + distances {
        let (length, times) = match code.next(bits)? {
            length @ 0..=15 => (length, 1),
            16 => (*lengths.last()?, 3 + bits.take(2)?),
            17 => (0, 3 + bits.take(3)?),
            _ => (0, 11 + bits.take(7)?),
        };
        lengths.resize(lengths.len() + times, length);
    }
    let (literal, distance) = lengths.split_at_checked(literals)?;
    Some((Code::new(literal)?, Code::new(distance.get(..distances)?)?))
}

/// Adds what a block comes to.
fn follow(bits: &mut Bits<'_>, (literals, distances): &Codes, size: &mut usize, limit: usize) -> Option<()> {
    while *size <= limit {
        match literals.next(bits)? {
            0..256 => *size += 1,
            256 => break,
            symbol => {
                let (length, more) = (LENGTHS.get(symbol - 257)?, MORE[symbol - 257]);
                *size += length + bits.take(more)?;
                let distance = u32::try_from(distances.next(bits)?).ok()?;
                bits.take((distance / 2).saturating_sub(1))?;
            }
        }
    }
    Some(())
}
