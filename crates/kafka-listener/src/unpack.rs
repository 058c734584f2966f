//! Compressed batches: how large one is when unpacked is known before it is unpacked, so that a bomb is never filled.

use bytes::{Buf, Bytes};
use kafka_protocol::{
    compression::{Decompressor, Gzip, Lz4, Snappy, Zstd},
    error::ResponseError::{CorruptMessage, MessageTooLarge},
    records::Compression,
};

use crate::{Refused, inflate};

/// Kafka's framing of Snappy blocks, as in `xerial/snappy-java`.
const SNAPPY_FRAMES: &[u8] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const ZSTD: u32 = 0xfd2f_b528;
/// The largest block of Zstandard when unpacked.
const ZSTD_BLOCK: usize = 128 * 1024;
const LZ4: u32 = 0x184d_2204;

/// The records of a batch, which may have `limit` bytes.
pub(crate) fn unpack(compression: Compression, packed: Bytes, limit: usize) -> Result<Bytes, Refused> {
    let size = match compression {
        Compression::None => Some(packed.len()),
        Compression::Gzip => inflate::size(&packed, limit),
        Compression::Snappy => snappy(&packed),
        Compression::Lz4 => lz4(&packed),
        Compression::Zstd => zstd(&packed),
    };
    let torn = Refused(CorruptMessage, "the compressed records are torn");
    if size.ok_or(torn)? > limit {
        return Err(Refused(MessageTooLarge, "the batch is too large when it is unpacked"));
    }
    let mut packed = packed;
    let whole = |unpacked: &mut Bytes| Ok(std::mem::take(unpacked));
    match compression {
        Compression::None => return Ok(packed),
        Compression::Gzip => Gzip::decompress(&mut packed, whole),
        Compression::Snappy => Snappy::decompress(&mut packed, whole),
        Compression::Lz4 => Lz4::decompress(&mut packed, whole),
        Compression::Zstd => Zstd::decompress(&mut packed, whole),
    }
    .map_err(|_| torn)
}

/// Each block begins with its size.
fn snappy(packed: &[u8]) -> Option<usize> {
    let Some(mut frames) = packed.strip_prefix(SNAPPY_FRAMES) else { return snappy_block(packed) };
    let mut size = 0_usize;
    while frames.has_remaining() {
        let length = frames.try_get_u32().ok()? as usize;
        size = size.checked_add(snappy_block(frames.get(..length)?)?)?;
        frames.advance(length);
    }
    Some(size)
}

fn snappy_block(block: &[u8]) -> Option<usize> {
    let mut size = 0;
    for (at, byte) in block.iter().take(5).enumerate() {
        size |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some(size);
        }
    }
    None
}

/// At most: a block may be smaller than the largest that the frame allows.
fn lz4(mut packed: &[u8]) -> Option<usize> {
    if packed.try_get_u32_le().ok()? != LZ4 {
        return None;
    }
    let (flags, sizes) = (packed.try_get_u8().ok()?, packed.try_get_u8().ok()?);
    let block = match (sizes >> 4) & 7 {
        code @ 4..=7 => 1_usize << (8 + 2 * code),
        _ => return None,
    };
    let (has_size, has_dictionary, checked) = (flags & 0x08 != 0, flags & 0x01 != 0, flags & 0x10 != 0);
    skip(&mut packed, usize::from(has_size) * 8 + usize::from(has_dictionary) * 4 + 1)?;
    let mut size = 0_usize;
    loop {
        let head = packed.try_get_u32_le().ok()?;
        let length = (head & 0x7fff_ffff) as usize;
        if head == 0 {
            return Some(size);
        }
        size = size.checked_add(if head == length as u32 { block } else { length })?;
        skip(&mut packed, length + usize::from(checked) * 4)?;
    }
}

/// At most: what a compressed block comes to is not written in it.
fn zstd(mut packed: &[u8]) -> Option<usize> {
    let mut size = 0_usize;
    while packed.has_remaining() {
        match packed.try_get_u32_le().ok()? {
            ZSTD => size = size.checked_add(zstd_frame(&mut packed)?)?,
            // may be skipped
            0x184d_2a50..=0x184d_2a5f => {
                let length = packed.try_get_u32_le().ok()? as usize;
                skip(&mut packed, length)?;
            }
            _ => return None,
        }
    }
    Some(size)
}

fn zstd_frame(packed: &mut &[u8]) -> Option<usize> {
    let head = packed.try_get_u8().ok()?;
    let (single, checked) = (head & 0x20 != 0, head & 0x04 != 0);
    let dictionary = [0, 1, 2, 4][usize::from(head & 3)];
    let content = [usize::from(single), 2, 4, 8][usize::from(head >> 6)];
    skip(packed, usize::from(!single) + dictionary + content)?;
    let mut size = 0_usize;
    loop {
        let block = packed.try_get_uint_le(3).ok()?;
        let length = usize::try_from(block >> 3).ok()?;
        let (stored, unpacked) = match (block >> 1) & 3 {
            0 => (length, length),
            1 => (1, length),
            2 => (length, ZSTD_BLOCK),
            _ => return None,
        };
        skip(packed, stored)?;
        size = size.checked_add(unpacked)?;
        if block & 1 == 1 {
            skip(packed, usize::from(checked) * 4)?;
            return Some(size);
        }
    }
}

fn skip(buf: &mut &[u8], length: usize) -> Option<()> {
    *buf = buf.get(length..)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::compression::Compressor;

    use super::*;

    const ALL: [Compression; 4] = [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    fn pack(compression: Compression, data: &[u8]) -> Bytes {
        let mut packed = BytesMut::new();
        let put = |buf: &mut BytesMut| {
            buf.extend_from_slice(data);
            Ok(())
        };
        match compression {
            Compression::Gzip => Gzip::compress(&mut packed, put),
            Compression::Snappy => Snappy::compress(&mut packed, put),
            Compression::Lz4 => Lz4::compress(&mut packed, put),
            Compression::Zstd => Zstd::compress(&mut packed, put),
            Compression::None => put(&mut packed),
        }
        .expect("packed");
        packed.freeze()
    }

    /// Nothing, one byte, words, noise, a long run: each makes the encoders choose other blocks.
    fn samples() -> Vec<Vec<u8>> {
        let mut random = fastrand::Rng::with_seed(3);
        let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(300_000).collect();
        let words: Vec<u8> = (0..200_000).map(|i| b"notification"[(i * i + i / 7) % 12]).collect();
        vec![vec![b'x'], b"hello, hello, hello".to_vec(), words, noise, vec![0; 1_000_000]]
    }

    #[test]
    fn what_was_packed_comes_out() {
        for compression in ALL {
            for data in samples() {
                let packed = pack(compression, &data);
                let out = unpack(compression, packed.clone(), 2 * 1024 * 1024).expect("it fits");
                assert!(out == data, "{compression:?} of {} bytes", data.len());
                if compression == Compression::Gzip {
                    assert_eq!(inflate::size(&packed, usize::MAX), Some(data.len()), "exactly");
                }
            }
        }
    }

    #[test]
    fn a_bomb_is_refused_by_its_size() {
        let bomb = vec![0; 64 * 1024 * 1024];
        for compression in ALL {
            let packed = pack(compression, &bomb);
            assert!(packed.len() < 4 * 1024 * 1024, "{compression:?}: {} bytes", packed.len());
            let refused = unpack(compression, packed, 8 * 1024 * 1024).expect_err("too large");
            assert_eq!(refused.0, MessageTooLarge, "{compression:?}");
        }
        // a block of Snappy that announces 4 GB
        assert_eq!(
            unpack(Compression::Snappy, Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]), 1024).unwrap_err().0,
            MessageTooLarge
        );
    }

    #[test]
    fn torn_and_changed_bytes_are_an_answer() {
        let data = b"hello, hello, hello, world".repeat(40);
        let mut random = fastrand::Rng::with_seed(5);
        for compression in ALL {
            let packed = pack(compression, &data);
            for cut in 0..packed.len() {
                let out = unpack(compression, packed.slice(..cut), 1024 * 1024);
                assert!(
                    out.map_or(true, |out| out.len() < data.len() || cut + 12 > packed.len()),
                    "{compression:?} {cut}"
                );
            }
            for _ in 0..5_000 {
                let mut bad = packed.to_vec();
                let at = random.usize(..bad.len());
                bad[at] = random.u8(..);
                let _any = unpack(compression, bad.into(), 64 * 1024).map(|out| assert!(out.len() <= 64 * 1024));
            }
        }
    }
}
